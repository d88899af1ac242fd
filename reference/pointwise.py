"""The epilogue: dequantise, apply operations in order, requantise, in numpy float32 with one rounding per operation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reference.functions import Floats, apply_function, at_least, at_most, softmax
from reference.linear import Integers, Tensors
from slalom.errors import ModelError
from slalom.plan.steps import Activation, Add, Affine, Apply, Multiply, Operation, Pointwise, Real, Softmax

Values = Mapping[str, NDArray[Any]]
Scales = Mapping[str, float]


def apply_pointwise(step: Pointwise, tensors: Tensors, values: Values, scales: Scales) -> NDArray[Any]:
    """The step's value, int16 or float32 [batch, *shape], from the values and scales of the steps before it."""
    v = values[step.source].astype(np.float32)
    for operation in step.operations:
        v = apply_operation(operation, v, tensors, values, scales)
    return emit(step.output, v)


def apply_softmax(step: Softmax, x: NDArray[Any], scale: float) -> NDArray[Any]:
    """The softmax of an activation along its last axis: dequantise, softmax, then requantise if the output asks so."""
    return emit(step.output, softmax(dequantise(x, scale), step.logarithm))


def apply_operation(operation: Operation, v: Floats, tensors: Tensors, values: Values, scales: Scales) -> Floats:
    """One operation on v."""
    if isinstance(operation, Affine):
        product = v * repeated(tensors[operation.multiplier], v)
        return product + repeated(tensors[operation.bias], v)
    if isinstance(operation, Apply):
        return apply_function(operation.function, v, operation.parameter)
    operand: Floats = values[operation.operand].astype(np.float32) * np.float32(scales[operation.operand])
    addressed: Floats = np.concatenate([repeated(item, v) for item in operand])
    if isinstance(operation, Add):
        return v + addressed
    if isinstance(operation, Multiply):
        return v * addressed
    raise ModelError(f"unknown operation {type(operation).__name__}")


def emit(output: Activation | Real, v: Floats) -> NDArray[Any]:
    """v itself for a `Real`, else the integers of the activation."""
    return quantise(v, output) if isinstance(output, Activation) else v


def quantise(v: Floats, output: Activation) -> NDArray[np.int16]:
    """v * (1/scale), clamped to the limits, rounded half to even."""
    inverse = np.float32(1) / np.float32(output.scale)
    held = at_least(at_most(v * inverse, output.limit), -output.limit)  # limit <= 16383 < 2**24: exact in float32
    return np.rint(held).astype(np.int16)


def dequantise(q: Integers, scale: float) -> Floats:
    """float32(q) * scale."""
    return q.astype(np.float32) * np.float32(scale)


def repeated(entries: NDArray[Any], v: Floats) -> Floats:
    """Entries laid over v's items: element e of an item (flattened) takes entry e mod the number of entries."""
    shape = v.shape[1:]
    count = int(np.prod(shape))
    flat = entries.astype(np.float32).reshape(-1)
    return flat[np.arange(count) % flat.size].reshape(1, *shape)
