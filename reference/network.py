"""A whole network, step by step. The linear steps go through a callable, so that each protocol can put itself there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reference.linear import Integers, Tensors, apply_step
from reference.pointwise import apply_pointwise, apply_softmax, dequantise, quantise
from slalom.errors import InputError, ModelError
from slalom.plan.steps import (
    Activation,
    Concatenate,
    Graph,
    Layout,
    Linear,
    Pad,
    Permute,
    Pointwise,
    Pool,
    Real,
    Reduction,
    Reshape,
    Slice,
    Softmax,
    Step,
    ValueType,
    Window,
)

Array = NDArray[Any]
Compute = Callable[[Linear, Integers], Integers]
"""The integers W·x of a linear step from its input, [batch, *input] -> [batch, *output]."""


def run(graph: Graph, tensors: Tensors, images: Array, compute: Compute | None = None) -> list[Array]:
    """The network's outputs, float32 [batch, ...] in the user's layout, for float32 images [batch, ...] in theirs."""
    values = run_activations(graph, tensors, images, compute)
    types = value_types(graph)
    return [leave(values[output.source], types[output.source], output.layout) for output in graph.outputs]


def run_activations(graph: Graph, tensors: Tensors, images: Array, compute: Compute | None = None) -> dict[str, Array]:
    """The value of the input and of every step: int16 activations, int64 accumulators, float32 reals."""
    types = value_types(graph)
    scales = {name: kind.scale for name, kind in types.items() if isinstance(kind, Activation)}
    values: dict[str, Array] = {graph.input.name: enter(graph, images)}
    for step in graph.steps:
        if isinstance(step, Linear):
            x = values[step.source]
            y = apply_step(step, tensors, x) if compute is None else compute(step, x)
            values[step.name] = y.astype(np.int64)  # |y| <= bound < 2**31
        elif isinstance(step, Pointwise):
            values[step.name] = apply_pointwise(step, tensors, values, scales)
        elif isinstance(step, Softmax):
            values[step.name] = apply_softmax(step, values[step.source], scales[step.source])
        elif isinstance(step, Concatenate):
            values[step.name] = np.concatenate([values[source] for source in step.sources], axis=step.axis + 1)
        else:
            values[step.name] = rearrange(step, values[step.source])
    return values


def value_types(graph: Graph) -> dict[str, ValueType]:
    """The type of the input and of every step's value."""
    types: dict[str, ValueType] = {graph.input.name: graph.input.output}
    for step in graph.steps:
        types[step.name] = step.output
    return types


def enter(graph: Graph, images: Array) -> Array:
    """The user's images as the input activation: their axes brought to (height, width, channels), then quantised."""
    x = np.asarray(images, dtype=np.float32)
    if graph.input.layout is Layout.CHANNELS_FIRST:
        x = x.transpose(0, 2, 3, 1)
    if x.shape[1:] != graph.input.output.shape:
        raise InputError(f"an image has shape {x.shape[1:]}, not {graph.input.output.shape}")
    return quantise(x, graph.input.output)


def leave(value: Array, kind: ValueType, layout: Layout) -> Array:
    """A value as the user receives it: float32, in their layout."""
    if isinstance(kind, Activation):
        value = dequantise(value, kind.scale)
    elif not isinstance(kind, Real):
        raise ModelError("an accumulator cannot be an output")
    return value.transpose(0, 3, 1, 2) if layout is Layout.CHANNELS_FIRST else value


def rearrange(step: Step, x: Array) -> Array:
    """The steps that join or move integers of one source."""
    if isinstance(step, Pool):
        return pool(step, x)
    if isinstance(step, Reshape):
        return x.reshape(len(x), *step.output.shape)
    if isinstance(step, Permute):
        return x.transpose(0, *(axis + 1 for axis in step.axes))
    if isinstance(step, Slice):
        return x[np.ix_(range(len(x)), *(indices(window) for window in step.windows))]
    if isinstance(step, Pad):
        return np.pad(x, [(0, 0), *zip(step.before, step.after, strict=True)])
    raise ModelError(f"unknown step {type(step).__name__}")


def pool(step: Pool, x: Array) -> Array:
    """Output (i, j, c) is the maximum, or the exact sum, of x over rows[i] and columns[j]."""
    y = np.zeros((len(x), len(step.rows), len(step.columns), x.shape[3]), dtype=np.int64)
    for i, rows in enumerate(step.rows):
        for j, columns in enumerate(step.columns):
            window = x[:, indices(rows)][:, :, indices(columns)].astype(np.int64)
            y[:, i, j] = window.max((1, 2)) if step.reduction is Reduction.MAXIMUM else window.sum((1, 2))
    return y.astype(np.int16) if step.reduction is Reduction.MAXIMUM else y


def indices(window: Window) -> list[int]:
    """The indices of a window."""
    return list(range(window.start, window.stop, window.step))
