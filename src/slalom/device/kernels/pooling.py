"""Pooling of integer images: the maximum or the sum of each window, exact, from tables of indices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from slalom.plan.steps import Pool, Reduction, Window

_BLOCK = 256


@triton.jit
def _pool(
    source, out, rows, columns,
    width, channels, item_size, output_width, output_size, row_count, column_count, blocks,
    MAXIMUM: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    item = (tl.program_id(0) // blocks).to(tl.int64)
    element = (tl.program_id(0) % blocks) * BLOCK + tl.arange(0, BLOCK)
    inside = element < output_size
    channel, pixel = element % channels, element // channels
    i, j = pixel // output_width, pixel % output_width
    image = source + item * item_size + channel
    total = tl.full((BLOCK,), -32768 if MAXIMUM else 0, dtype=tl.int32)
    for a in range(row_count):
        row = tl.load(rows + i * row_count + a, mask=inside, other=-1)
        for b in range(column_count):
            column = tl.load(columns + j * column_count + b, mask=inside, other=-1)
            valid = (row >= 0) & (column >= 0)
            if MAXIMUM:
                x = tl.load(image + (row * width + column) * channels, mask=valid, other=-32768).to(tl.int32)
                total = tl.maximum(total, x)
            else:
                total += tl.load(image + (row * width + column) * channels, mask=valid, other=0).to(tl.int32)
    tl.store(out + item * output_size + element, total, mask=inside)


@dataclass(frozen=True, eq=False)
class PreparedPool:
    """The windows as tables int32 [extent, longest window], filled with -1, and which reduction it is."""

    rows: Tensor
    columns: Tensor
    maximum: bool


def prepare_pool(step: Pool, device: torch.device) -> PreparedPool:
    """The tables of a pool."""
    rows, columns = _table(step.rows), _table(step.columns)
    return PreparedPool(rows.to(device), columns.to(device), step.reduction is Reduction.MAXIMUM)


def pool(prepared: PreparedPool, source: Tensor) -> Tensor:
    """The windows of int16 [B, H, W, C]: int16 [B, OH, OW, C] for a maximum, int32 for a sum (mod 2**32)."""
    batch, height, width, channels = source.shape
    shape = (batch, len(prepared.rows), len(prepared.columns), channels)
    out = torch.empty(shape, dtype=torch.int16 if prepared.maximum else torch.int32, device=source.device)
    output_size = out[0].numel()
    blocks = -(-output_size // _BLOCK)
    _pool[(batch * blocks,)](
        source, out, prepared.rows, prepared.columns,
        width, channels, height * width * channels, shape[2], output_size,
        prepared.rows.shape[1], prepared.columns.shape[1], blocks,
        MAXIMUM=prepared.maximum, BLOCK=_BLOCK,
    )  # fmt: skip
    return out


def _table(windows: Sequence[Window]) -> Tensor:
    indices = [list(range(window.start, window.stop, window.step)) for window in windows]
    longest = max(len(row) for row in indices)
    return torch.tensor([row + [-1] * (longest - len(row)) for row in indices], dtype=torch.int32)
