"""Which tile sizes a convolution runs with: a small table, measured on one H100 (docs/performance.md).

Every choice gives the same bits, since the sums are integers. Nothing is tuned at run time.
"""

from __future__ import annotations

from dataclasses import dataclass

from slalom.plan.shapes import Geometry

_PROCESSORS = 132  # of an H100: fewer programs than this leave some idle
_FLAT_CHANNELS = 24  # fewer input channels than this, and taps are packed without gaps
_SHORTEST_PART = 8  # blocks of depth that a program should at least have


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
    if geometry.group_inputs % 64 == 0 and geometry.groups == 1 and pixels >= 64 and digits > 1:
        block = 128 if geometry.group_inputs % 128 == 0 else 64
        columns = 256 if outputs >= 256 else 128 if outputs >= 128 else 64
        programs = -(-pixels * digits // 128) * -(-outputs // columns)
        return Tile(128, columns, 8 if columns > 64 else 4, 3, _parts(geometry, programs), True, block)
    rows = 16 if pixels <= 16 else 128 if pixels >= 128 else 64
    columns = 64 if digits == 4 else 128
    if rows == 16:
        columns = 64
    columns = min(columns, max(16, 1 << (outputs - 1).bit_length()))
    programs = -(-pixels // rows) * -(-outputs // columns) * geometry.groups
    return Tile(rows, columns, 8 if rows == 128 else 4, 3 if rows >= 64 else 4, _parts(geometry, programs))


def _parts(geometry: Geometry, programs: int) -> int:
    """Into how many parts the depth is cut so that every processor has work."""
    steps = -(-geometry.taps * geometry.group_inputs // 64)
    return max(1, min(_PROCESSORS * 2 // programs, steps // _SHORTEST_PART))
