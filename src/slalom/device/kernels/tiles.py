"""Which tile sizes a convolution runs with: a small table, measured on one H100 (docs/performance.md).

Every choice gives the same bits, since the sums are integers. Nothing is tuned at run time.
"""

from __future__ import annotations

from dataclasses import dataclass

from slalom.plan.shapes import Geometry

ALIGNMENT = 16  # bytes: what the copy engine wants of a row
_PROCESSORS = 132  # of an H100: fewer programs than this leave some idle
_FLAT_CHANNELS = 24  # fewer input channels than this, and taps are packed without gaps
_FEW_PIXELS = 32  # dense layers on small batches: bound by the weights, so many programs share the depth
_CACHED_PIXELS = 2**12


@dataclass(frozen=True, slots=True)
class Tile:
    """How one program's work is cut: rows by columns of output, `parts` of the depth, and Triton's own settings.

    `stacked`: the digits are taken apart beforehand (`stacked`), a tile's rows are digits of pixels, and `block` is how
    much of the depth is read at once.
    """

    rows: int
    columns: int
    warps: int
    stages: int
    parts: int = 1
    stacked: bool = False
    block: int = 64


def choose_block(geometry: Geometry) -> tuple[bool, int]:
    """(whether the depth is packed flat, how much of it a program reads at once)."""
    inputs = geometry.group_inputs
    if inputs < _FLAT_CHANNELS and geometry.taps > 1:
        return True, 32 if geometry.taps * inputs <= 32 else 64
    wide = -(-inputs // 64) * 64
    return False, 64 if wide <= inputs * 1.2 else 32


def choose_tile(geometry: Geometry, batch: int, digits: int) -> Tile:
    """The tile for a batch of items and a number of digits."""
    pixels, outputs = batch * geometry.pixels, geometry.group_outputs
    if pixels <= _FEW_PIXELS:
        columns = min(128, _power(outputs))
        return Tile(16, columns, 4, 4, _parts(geometry, -(-outputs // columns) * geometry.groups, 8))
    if can_stack(geometry) and _stacks(geometry, pixels, digits):
        return stacked_tile(geometry)
    return registers_tile(geometry, pixels, digits)


def stacked_tile(geometry: Geometry) -> Tile:
    """The tile for digits that were taken apart beforehand; input channels come in whole blocks of 64."""
    return Tile(128, 128 if geometry.group_outputs > 64 else 64, 4, 3, 1, True, _stacked_block(geometry))


def registers_tile(geometry: Geometry, pixels: int, digits: int) -> Tile:
    """The tile for digits that are taken apart in registers."""
    outputs = geometry.group_outputs
    rows = 128 if digits == 1 and pixels >= 2**15 and outputs > 64 else 64
    columns = min(64 if digits == 4 else 128, _power(outputs))
    programs = -(-pixels // rows) * -(-outputs // columns) * geometry.groups
    return Tile(rows, columns, 8 if rows == 128 else 4, 3, _parts(geometry, programs, 32))


def can_stack(geometry: Geometry) -> bool:
    """Whether the stacked kernel takes the map: one group, rows that can be copied, stride 1 (or a 1x1 kernel)."""
    plain = geometry.groups == 1 and geometry.group_inputs % ALIGNMENT == 0
    return plain and (geometry.stride == (1, 1) or geometry.taps == 1)


def _stacks(geometry: Geometry, pixels: int, digits: int) -> bool:
    """Whether taking the digits apart beforehand pays: many products a word, and rows that stay in the cache."""
    inputs, outputs = geometry.group_inputs, geometry.group_outputs
    if digits == 1 or inputs % 64:
        return False
    if geometry.taps > 1:
        return outputs >= 128
    deep = outputs >= 256 if digits == 4 else outputs >= 512 and inputs >= 1024
    return deep and pixels <= _CACHED_PIXELS


def _stacked_block(geometry: Geometry) -> int:
    return 128 if geometry.group_inputs % 128 == 0 else 64


def _power(count: int) -> int:
    return max(16, 1 << (count - 1).bit_length())


def _parts(geometry: Geometry, programs: int, shortest: int) -> int:
    """Into how many parts the depth is cut so that every processor has work; none has fewer blocks than `shortest`."""
    steps = -(-geometry.taps * geometry.group_inputs // 64)
    return max(1, min(_PROCESSORS * 2 // programs, steps // shortest))
