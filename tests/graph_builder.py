"""Builds a network step by step: draws weights, finds shapes, bounds and scales. For `tests.graphs`."""

from __future__ import annotations

from dataclasses import replace
from math import prod, sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reference.linear import output_shape
from slalom.plan.steps import (
    ACCUMULATOR_LIMIT,
    Accumulator,
    Activation,
    Affine,
    Convolution,
    Dense,
    Graph,
    Input,
    Layout,
    Linear,
    LinearMap,
    Operation,
    Output,
    Pointwise,
    Pool,
    Real,
    Reduction,
    Shape,
    Step,
    ValueType,
    Window,
)

Tensors = dict[str, NDArray[Any]]
SPREAD = 4.0  # an activation's limit stands for this real number; values are built to have a deviation near 1
WEIGHT_DEVIATION = sqrt(127 * 128 / 3)  # of integers uniform in -127..127


def windows(size: int, kernel: int, stride: int, padding: int) -> tuple[Window, ...]:
    """The windows of ordinary pooling along one axis, cut off at the edges."""
    starts = range(-padding, size + padding - kernel + 1, stride)
    return tuple(Window(max(0, start), min(size, start + kernel)) for start in starts)


def exact_scale(scale: float) -> float:
    """The nearest float that float32 holds exactly."""
    return float(np.float32(scale))


def activation(shape: Shape, bits: int = 12) -> Activation:
    """An activation whose limit stands for `SPREAD`."""
    kind = Activation(shape, 1.0, bits)
    return replace(kind, scale=exact_scale(SPREAD / kind.limit))


def bound_of(maps: tuple[LinearMap, ...], tensors: Tensors, limit: int) -> int:
    """A bound on |y| for |x| <= limit: each map multiplies by at most its largest sum of absolute weights.

    It ignores that border positions see fewer taps, and that the weights of a chain may cancel.
    """
    for linear_map in maps:
        weight = np.abs(tensors[linear_map.weight].astype(np.int64))
        limit *= int(weight.sum(axis=tuple(range(weight.ndim - 1))).max())
    return limit


class Builder:
    """Adds steps one after the other, drawing their weights and finding their shapes, bounds and scales."""

    def __init__(self, model: str, shape: Shape, layout: Layout, *, seed: int, bits: int) -> None:
        self.model = model
        self.input = Input("image", layout, activation(shape, bits))
        self.random = np.random.default_rng(seed)
        self.tensors: Tensors = {}
        self.steps: list[Step] = []
        self.types: dict[str, ValueType] = {"image": self.input.output}
        self.units: dict[str, float] = {}  # what 1 of an accumulator stands for, as a real number

    def graph(self, *outputs: Output) -> tuple[Graph, Tensors]:
        """The finished network."""
        return Graph(self.model, self.input, tuple(self.steps), outputs), self.tensors

    def add(self, step: Step) -> None:
        """Appends a step as it is."""
        self.steps.append(step)
        self.types[step.name] = step.output

    def like(self, name: str, shape: Shape) -> Activation:
        """The type of an earlier activation under another shape."""
        kind = self.types[name]
        assert isinstance(kind, Activation)
        return replace(kind, shape=shape)

    def convolution(
        self,
        name: str,
        kernel: tuple[int, int],
        inputs: int,
        outputs: int,
        *,
        stride: tuple[int, int] = (1, 1),
        padding: tuple[int, int, int, int] = (0, 0, 0, 0),
        dilation: tuple[int, int] = (1, 1),
        groups: int = 1,
    ) -> Convolution:
        """A convolution with fresh weights."""
        weight = self.weight(name, (*kernel, inputs // groups, outputs))
        return Convolution(weight, stride, padding, dilation, groups)

    def dense(self, name: str, inputs: int, outputs: int) -> Dense:
        """A dense map with fresh weights."""
        return Dense(self.weight(name, (inputs, outputs)))

    def weight(self, name: str, shape: Shape) -> str:
        """Draws an int8 tensor in -127..127, both ends included, and returns its name."""
        values = self.random.integers(-127, 128, shape).astype(np.int8)
        values.reshape(-1)[:2] = (-127, 127)
        self.tensors[f"{name}.weight"] = values
        return f"{name}.weight"

    def linear(self, name: str, source: str, *maps: LinearMap) -> None:
        """A linear step with its range proof."""
        kind = self.types[source]
        assert isinstance(kind, Activation)
        bound = bound_of(maps, self.tensors, kind.limit)
        shape = kind.shape
        for linear_map in maps:
            shape = output_shape(linear_map, self.tensors, shape)
        assert bound <= ACCUMULATOR_LIMIT, name
        fans = [prod(self.tensors[linear_map.weight].shape[:-1]) for linear_map in maps]
        self.units[name] = kind.scale / prod(WEIGHT_DEVIATION * sqrt(fan) for fan in fans)
        self.add(Linear(name, source, maps, Accumulator(shape, bound)))

    def pool(
        self, name: str, source: str, reduction: Reduction, rows: tuple[Window, ...], columns: tuple[Window, ...]
    ) -> None:
        """A pooling step; a sum has the bound of its largest window."""
        kind = self.types[source]
        assert isinstance(kind, Activation)
        shape = (len(rows), len(columns), kind.shape[2])
        count = max(length(row) for row in rows) * max(length(column) for column in columns)
        summed = Accumulator(shape, count * kind.limit)
        self.units[name] = kind.scale
        self.add(
            Pool(
                name,
                source,
                reduction,
                rows,
                columns,
                self.like(source, shape) if reduction is Reduction.MAXIMUM else summed,
            )
        )

    def pointwise(
        self,
        name: str,
        source: str,
        *operations: Operation,
        scale: float = 1.0,
        bias: float = 0.25,
        bits: int = 12,
        like: str | None = None,
        real: bool = False,
    ) -> None:
        """Dequantise with a per-channel multiplier near `scale` and a per-channel bias, then the operations."""
        kind = self.types[source]
        unit = kind.scale if isinstance(kind, Activation) else self.units[source]
        channels = kind.shape[-1]
        multiplier = unit * scale * self.random.uniform(0.75, 1.25, channels)
        self.tensors[f"{name}.multiplier"] = multiplier.astype(np.float32)
        self.tensors[f"{name}.bias"] = self.random.uniform(-bias, bias, channels).astype(np.float32)
        affine = Affine(f"{name}.multiplier", f"{name}.bias")
        output: Activation | Real = Real(kind.shape) if real else activation(kind.shape, bits)
        if like is not None:
            output = self.like(like, kind.shape)
        self.add(Pointwise(name, source, (affine, *operations), output))


def length(window: Window) -> int:
    """How many indices a window has."""
    return len(range(window.start, window.stop, window.step))
