"""A program of the epilogue over every element, one kernel a program: `arithmetic.pointwise.run_program` on the device.

The operations are compile-time constants and their tensors one tuple, so that Triton makes one straight line of float32
operations, each rounded on its own. A long program runs as several kernels with float32 between them, which is exact.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
import triton
import triton.language as tl
from torch import Tensor

from slalom.arithmetic.pointwise import (
    PreparedAdd,
    PreparedAffine,
    PreparedApply,
    PreparedMultiply,
    PreparedOperation,
    Program,
    Requantisation,
)
from slalom.device.kernels.functions import CODES, apply_function, requantise
from slalom.errors import ApiMisuse

_BLOCK = 1024
_LONGEST = 8  # operations of one kernel

_AFFINE = tl.constexpr(0)
_APPLY = tl.constexpr(1)
_ADD = tl.constexpr(2)
_MULTIPLY = tl.constexpr(3)


@triton.jit
def _operate(
    v, element, inside, item, count, first, second, number,
    KIND: tl.constexpr, CODE: tl.constexpr, LENGTH: tl.constexpr,
):  # fmt: skip
    """One operation; LENGTH is that of its tensors, and 0 where it is the item's."""
    if KIND == _APPLY:
        return apply_function(v, number, CODE)
    else:
        place = element if LENGTH == 0 else element % LENGTH
        if KIND == _AFFINE:
            multiplier = tl.load(first + place, mask=inside, other=0)
            bias = tl.load(second + place, mask=inside, other=0)
            return v * multiplier + bias
        else:
            size = count if LENGTH == 0 else LENGTH
            a = tl.load(first + item * size + place, mask=inside, other=0).to(tl.float32) * number
            return v + a if KIND == _ADD else v * a


@triton.jit
def _run(
    source, out, tensors, numbers, count, blocks, inverse, limit,
    KINDS: tl.constexpr, REQUANTISED: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Operation i: kind, function and length in KINDS[i]; tensors[2i], tensors[2i + 1]; number i."""
    item = (tl.program_id(0) // blocks).to(tl.int64)
    element = (tl.program_id(0) % blocks) * BLOCK + tl.arange(0, BLOCK)
    inside = element < count
    v = tl.load(source + item * count + element, mask=inside, other=0).to(tl.float32)
    for i in tl.static_range(len(KINDS)):
        v = _operate(
            v, element, inside, item, count, tensors[2 * i], tensors[2 * i + 1], numbers[i],
            KINDS[i][0], KINDS[i][1], KINDS[i][2],
        )  # fmt: skip
    if REQUANTISED:
        tl.store(out + item * count + element, requantise(v, inverse, limit), mask=inside)
    else:
        tl.store(out + item * count + element, v, mask=inside)


@dataclass(frozen=True, eq=False)
class DeviceProgram:
    """A `Program` whose tensors lie on the device: for each operation a multiplier and a bias, or None."""

    operations: tuple[PreparedOperation, ...]
    parameters: tuple[tuple[Tensor, Tensor] | None, ...]
    output: Requantisation | None


def load_program(program: Program, device: torch.device) -> DeviceProgram:
    """The program with its tensors copied to the device."""

    def place(operation: PreparedOperation) -> tuple[Tensor, Tensor] | None:
        if not isinstance(operation, PreparedAffine):
            return None
        copies = (torch.from_numpy(np.array(row)).to(device) for row in (operation.multiplier, operation.bias))
        return next(copies), next(copies)

    return DeviceProgram(program.operations, tuple(map(place, program.operations)), program.output)


def run_program(program: DeviceProgram, source: Tensor, operands: Mapping[str, Tensor]) -> Tensor:
    """The program over int32 or int16 [B, M], operands int16 [B, P] with P dividing M: int16 or float32 [B, M].

    Raises ApiMisuse for an item of 2^31 elements or more.
    """
    if source.shape[1] >= 2**31:
        raise ApiMisuse("an item of 2^31 elements or more does not fit the kernels")
    values = source
    for start in range(0, len(program.operations), _LONGEST):
        values = _run_part(program, slice(start, start + _LONGEST), values, operands)
    return values


def _run_part(program: DeviceProgram, part: slice, source: Tensor, operands: Mapping[str, Tensor]) -> Tensor:
    batch, count = source.shape
    output = program.output if part.stop >= len(program.operations) else None
    out = torch.empty((batch, count), dtype=torch.float32 if output is None else torch.int16, device=source.device)
    kinds: list[tuple[int, int, int]] = []
    tensors: list[Tensor] = []
    numbers: list[float] = []
    for operation, parameters in zip(program.operations[part], program.parameters[part], strict=True):
        kind, number, pair = _encode(operation, parameters, operands, out)
        length = int(pair[0].shape[-1]) if kind[0] != _APPLY.value else 0
        kinds.append((*kind, 0 if length == count else length))
        numbers.append(number)
        tensors += pair
    blocks = -(-count // _BLOCK)
    # LOAD-BEARING: enable_fp_fusion=False, or v * multiplier + bias becomes one rounding and other bits
    _run[(batch * blocks,)](
        source, out, tuple(tensors), tuple(numbers), count, blocks,
        1.0 if output is None else float(output.inverse), 0.0 if output is None else float(output.limit),
        KINDS=tuple(kinds), REQUANTISED=output is not None, BLOCK=_BLOCK, enable_fp_fusion=False,
    )  # fmt: skip
    return out


def _encode(
    operation: PreparedOperation,
    parameters: tuple[Tensor, Tensor] | None,
    operands: Mapping[str, Tensor],
    unused: Tensor,
) -> tuple[tuple[int, int], float, tuple[Tensor, Tensor]]:
    """((kind, function), number, tensors) of one operation."""
    if isinstance(operation, PreparedAffine) and parameters is not None:
        return (_AFFINE.value, 0), 0.0, parameters
    if isinstance(operation, PreparedApply):
        return (_APPLY.value, CODES[operation.function]), float(operation.parameter), (unused, unused)
    if isinstance(operation, PreparedAdd | PreparedMultiply):
        kind = _ADD if isinstance(operation, PreparedAdd) else _MULTIPLY
        operand = operands[operation.operand]
        return (kind.value, 0), float(operation.scale), (operand, operand)
    raise ApiMisuse("unknown operation")
