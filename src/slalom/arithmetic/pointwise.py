"""The float32 epilogue of a step, prepared once and run in NumPy: the reference of the fused pass.

Enters: integers [B, M] and earlier activations. Leaves: an activation (int16) or real numbers (float32) [B, M].
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import gcd
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from slalom.arithmetic import functions
from slalom.arithmetic.functions import Floats
from slalom.arithmetic.memory import aligned_copy
from slalom.errors import ModelError
from slalom.plan.steps import Activation, Add, Affine, Apply, Function, Operation, Pointwise, ValueType

Integers = NDArray[np.int16] | NDArray[np.int32]
Operands = Mapping[str, NDArray[np.int16]]

_REPEAT_LIMIT = 2**16
_REPEAT_TARGET = 1024


@dataclass(frozen=True)
class PreparedAffine:
    """v * multiplier + bias. The wide arrays repeat the plain ones as the kernels want them (see `_widen`)."""

    ROOM: ClassVar[int] = 16

    multiplier: Floats
    bias: Floats
    wide_multiplier: Floats
    wide_bias: Floats


@dataclass(frozen=True)
class PreparedApply:
    """function(v), with the slope of leaky_relu."""

    function: Function
    parameter: np.float32


@dataclass(frozen=True)
class PreparedAdd:
    """v + float32(operand) * scale."""

    operand: str
    scale: np.float32


@dataclass(frozen=True)
class PreparedMultiply:
    """v * (float32(operand) * scale)."""

    operand: str
    scale: np.float32


PreparedOperation = PreparedAffine | PreparedApply | PreparedAdd | PreparedMultiply


@dataclass(frozen=True)
class Requantisation:
    """To an activation: v * inverse, clamped to -limit..limit, rounded half to even."""

    inverse: np.float32
    limit: int


@dataclass(frozen=True)
class Program:
    """A `Pointwise` with its tensors and scales resolved; `output` is None where float32 leaves."""

    operations: tuple[PreparedOperation, ...]
    output: Requantisation | None


def prepare_program(step: Pointwise, tensors: Mapping[str, NDArray[Any]], types: Mapping[str, ValueType]) -> Program:
    """The step's program, from the plan's tensors and the types of earlier values.

    Raises ModelError for a missing or non-finite tensor, a length that does not divide the step's count, an
    operand that is not an activation, or a first operation that is not an Affine.
    """
    if not step.operations or not isinstance(step.operations[0], Affine):
        raise ModelError(f"pointwise step {step.name} must begin with an affine operation")
    count = int(np.prod(step.output.shape, dtype=np.int64))
    operations = tuple(_prepare(operation, count, tensors, types) for operation in step.operations)
    output = prepare_requantisation(step.output) if isinstance(step.output, Activation) else None
    return Program(operations, output)


def prepare_requantisation(output: Activation) -> Requantisation:
    """The inverse scale and the limit of an activation. Raises ModelError for a scale that is not positive."""
    scale = np.float32(output.scale)
    if not (np.isfinite(scale) and scale >= np.finfo(np.float32).tiny):
        raise ModelError("an activation's scale must be a positive normal float32")
    return Requantisation(np.float32(1) / scale, output.limit)


def run_program(program: Program, source: Integers, operands: Operands) -> NDArray[np.int16] | Floats:
    """The program over integers [B, M], with operands int16 [B, P], P dividing M: int16 or float32 [B, M]."""
    values: Floats = source.astype(np.float32)
    for operation in program.operations:
        values = _run(operation, values, operands)
    return values if program.output is None else requantise(values, program.output)


def requantise(values: Floats, output: Requantisation) -> NDArray[np.int16]:
    """Float32 to int16: times the inverse scale, clamped, rounded half to even. NaN gives the limit."""
    limit = np.float32(output.limit)
    scaled = values * output.inverse
    scaled = np.where(scaled < limit, scaled, limit)
    scaled = np.where(scaled > -limit, scaled, -limit)
    rounded: NDArray[np.int16] = np.rint(scaled).astype(np.int16)  # |scaled| <= limit <= 16383 < 2**15
    return rounded


def _prepare(
    operation: Operation, count: int, tensors: Mapping[str, NDArray[Any]], types: Mapping[str, ValueType]
) -> PreparedOperation:
    if isinstance(operation, Affine):
        multiplier = _tensor(operation.multiplier, count, tensors)
        bias = _tensor(operation.bias, count, tensors)
        if multiplier.size != bias.size:
            raise ModelError(f"{operation.multiplier} and {operation.bias} differ in length")
        return PreparedAffine(multiplier, bias, _widen(multiplier), _widen(bias))
    if isinstance(operation, Apply):
        return PreparedApply(operation.function, np.float32(operation.parameter))
    operand = types.get(operation.operand)
    if not isinstance(operand, Activation):
        raise ModelError(f"operand {operation.operand} is not an activation")
    size = int(np.prod(operand.shape, dtype=np.int64))
    if size < 1 or count % size:
        raise ModelError(f"operand {operation.operand} has {size} elements, which does not divide {count}")
    kind = PreparedAdd if isinstance(operation, Add) else PreparedMultiply
    return kind(operation.operand, np.float32(operand.scale))


def _tensor(name: str, count: int, tensors: Mapping[str, NDArray[Any]]) -> Floats:
    if name not in tensors:
        raise ModelError(f"tensor {name} is missing")
    tensor = tensors[name]
    if tensor.dtype != np.float32 or tensor.ndim != 1 or not np.all(np.isfinite(tensor)):
        raise ModelError(f"tensor {name} must be one row of finite float32 numbers")
    if tensor.size < 1 or count % tensor.size:
        raise ModelError(f"tensor {name} has {tensor.size} entries, which does not divide {count}")
    return np.ascontiguousarray(tensor)


def _widen(tensor: Floats) -> Floats:
    """The entries repeated to a multiple of 16 and to about 1024, so that the kernels seldom wrap around.

    16 more follow, going on around: a kernel may read a whole vector from the last entry.
    """
    repeats = 1
    if tensor.size <= _REPEAT_LIMIT:
        repeats = PreparedAffine.ROOM // gcd(tensor.size, PreparedAffine.ROOM)
        repeats *= max(1, _REPEAT_TARGET // (tensor.size * repeats))
    return aligned_copy(np.resize(tensor, tensor.size * repeats + PreparedAffine.ROOM))


def _run(operation: PreparedOperation, values: Floats, operands: Operands) -> Floats:
    if isinstance(operation, PreparedApply):
        return functions.apply(operation.function, values, float(operation.parameter))
    if isinstance(operation, PreparedAffine):
        rows = values.reshape(len(values), -1, operation.multiplier.size)
        return (rows * operation.multiplier + operation.bias).reshape(values.shape)
    operand = operands[operation.operand].astype(np.float32) * operation.scale
    rows = values.reshape(len(values), -1, operand.shape[1])
    repeated = operand[:, None, :]
    joined = rows + repeated if isinstance(operation, PreparedAdd) else rows * repeated
    return joined.reshape(values.shape)
