"""How large the numbers of a step can become: bounds that hold for every input."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from slalom.plan.steps import Accumulator, Activation, Add, Affine, Multiply, Operation, Pointwise, ValueType, Window

FLOAT_LIMIT = 2.0**100  # float32 reaches 2^127: products within one operation stay finite

_FUNCTION_REACH = 8.0  # |function(v)| <= max(|v|, 8) for every Function


def largest_window(windows: tuple[Window, ...]) -> int:
    """The most indices any of the windows holds."""
    return max(len(range(window.start, window.stop, window.step)) for window in windows)


def value_reach(kind: ValueType) -> float:
    """The largest magnitude of the integers of a value."""
    if isinstance(kind, Activation):
        return float(kind.limit)
    return float(kind.bound) if isinstance(kind, Accumulator) else 0.0


def pointwise_reach(step: Pointwise, types: Mapping[str, ValueType], tensors: Mapping[str, np.ndarray]) -> float:
    """An upper bound of |v| after every operation of a pointwise step, for every input."""
    reach = value_reach(types[step.source])
    largest = reach
    for operation in step.operations:
        reach = _after(operation, reach, types, tensors)
        largest = max(largest, reach)
    if isinstance(step.output, Activation):
        largest = max(largest, reach / step.output.scale)
    return largest


def _after(
    operation: Operation, reach: float, types: Mapping[str, ValueType], tensors: Mapping[str, np.ndarray]
) -> float:
    if isinstance(operation, Affine):
        scale = float(np.abs(tensors[operation.multiplier]).max())
        return reach * scale + float(np.abs(tensors[operation.bias]).max())
    if isinstance(operation, Add | Multiply):
        kind = types[operation.operand]
        operand = value_reach(kind) * (kind.scale if isinstance(kind, Activation) else 1.0)
        return reach + operand if isinstance(operation, Add) else reach * operand
    return max(reach, _FUNCTION_REACH)
