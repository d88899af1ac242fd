"""The plan's steps and tensors, from the schedule and the chosen scales."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slalom.errors import ModelError
from slalom.importer import graph as floats
from slalom.importer.chain import Chain
from slalom.importer.fold import compose
from slalom.importer.fuse import Direct, Joined, Program, Schedule, makes_accumulator
from slalom.importer.graph import FloatGraph
from slalom.plan import steps
from slalom.plan.ranges import largest_window
from slalom.plan.steps import Accumulator, Activation, Input, Output, Real, Shape, Step

Scales = Mapping[str, tuple[float, int]]


class Assembly:
    """`steps`, `tensors`, `input` and `outputs` of a plan."""

    def __init__(self, graph: FloatGraph, schedule: Schedule, chains: Mapping[str, Chain], scales: Scales) -> None:
        self._chains, self._scales = chains, scales
        self._affines: dict[str, floats.Affine] = {}
        self.tensors: dict[str, NDArray[Any]] = {}
        entry = self._activation(graph.input, graph.nodes[graph.input].shape)
        self.input = Input(graph.input, graph.input_layout, entry)
        self.steps: tuple[Step, ...] = tuple(
            self._pointwise(draft) if isinstance(draft, Program) else self._direct(draft) for draft in schedule.drafts
        )
        self.outputs = tuple(Output(source, layout) for source, layout in schedule.outputs)

    def _activation(self, name: str, shape: Shape) -> Activation:
        scale, bits = self._scales[name]
        return Activation(shape, scale, bits)

    def _limit(self, name: str) -> int:
        return self._activation(name, ()).limit

    def _direct(self, draft: Direct) -> Step:
        if makes_accumulator(draft.node):
            return self._accumulate(draft)
        return _moved(
            draft, Real(draft.node.shape) if draft.is_real else self._activation(draft.name, draft.node.shape)
        )

    def _accumulate(self, draft: Direct) -> Step:
        """A linear step or a sum, and the affine that its reader begins with."""
        operation, source = draft.node.operation, draft.sources[0]
        scale = self._scales[source][0]
        if isinstance(operation, floats.Pool):
            self._affines[draft.name] = floats.Affine(operation.factors * scale, np.zeros_like(operation.factors))
            bound = largest_window(operation.rows) * largest_window(operation.columns) * self._limit(source)
            output = Accumulator(draft.node.shape, bound)
            return steps.Pool(draft.name, source, operation.reduction, operation.rows, operation.columns, output)
        chain = self._chains[draft.node.name]
        self._affines[draft.name] = floats.Affine(chain.scales * scale, chain.bias)
        self.tensors.update(chain.weights)
        return steps.Linear(
            draft.name, source, chain.maps, Accumulator(draft.node.shape, chain.bound * self._limit(source))
        )

    def _pointwise(self, draft: Program) -> Step:
        first = self._affines.get(draft.source)
        if first is None:
            first = floats.Affine(np.full(1, self._scales[draft.source][0]), np.zeros(1))
        operations: list[floats.Affine | floats.Apply | Joined] = [first]
        for operation in draft.operations:
            last = operations[-1]
            both = isinstance(last, floats.Affine) and isinstance(operation, floats.Affine)
            joined = compose(last, operation) if both else None  # type: ignore[arg-type]
            if joined is None:
                operations.append(operation)
            else:
                operations[-1] = joined
        output = Real(draft.shape) if draft.is_real else self._activation(draft.name, draft.shape)
        emitted = tuple(self._operation(draft.name, index, item) for index, item in enumerate(operations))
        return steps.Pointwise(draft.name, draft.source, emitted, output)

    def _operation(self, step: str, index: int, operation: floats.Affine | floats.Apply | Joined) -> steps.Operation:
        if isinstance(operation, floats.Apply):
            return steps.Apply(operation.function, operation.parameter)
        if isinstance(operation, Joined):
            kind = steps.Add if isinstance(operation.operation, floats.Add) else steps.Multiply
            return kind(operation.operand)
        prefix = step if index == 0 else f"{step}.{index}"
        self.tensors[f"{prefix}.multiplier"] = _single_precision(operation.multiplier, step)
        self.tensors[f"{prefix}.bias"] = _single_precision(operation.bias, step)
        return steps.Affine(f"{prefix}.multiplier", f"{prefix}.bias")


def _single_precision(entries: floats.Floats, step: str) -> NDArray[np.float32]:
    if not (np.abs(entries) <= np.finfo(np.float32).max).all():
        raise ModelError(f"step {step!r}: a multiplier or bias is beyond float32")
    return np.ascontiguousarray(entries, dtype=np.float32)


def _moved(draft: Direct, output: Activation | Real) -> Step:
    """A step that passes integers on, or a softmax."""
    name, source, operation = draft.name, draft.sources[0], draft.node.operation
    if isinstance(operation, floats.Softmax):
        return steps.Softmax(name, source, operation.logarithm, output)
    if isinstance(output, Real):
        raise ModelError(f"step {name!r}: cannot give reals")
    if isinstance(operation, floats.Pool):
        return steps.Pool(name, source, operation.reduction, operation.rows, operation.columns, output)
    if isinstance(operation, floats.Concatenate):
        return steps.Concatenate(name, draft.sources, operation.axis, output)
    if isinstance(operation, floats.Reshape):
        return steps.Reshape(name, source, output)
    if isinstance(operation, floats.Permute):
        return steps.Permute(name, source, operation.axes, output)
    if isinstance(operation, floats.Slice):
        return steps.Slice(name, source, operation.windows, output)
    if isinstance(operation, floats.Pad):
        return steps.Pad(name, source, operation.before, operation.after, output)
    raise ModelError(f"step {name!r}: unknown operation {type(operation).__name__}")
