"""A linear map as an implicit matrix product on signed bytes: exact mod 2**32.

y[m, o] = sum over digits k of 2^(8k) * (sum over (tap, channel) of d_k[m, tap, channel] * w[tap, channel, o]),
m an output pixel. The words are read as they arrive, int16 or int32 [B, H, W, C], and taken apart in registers: each
tile of words is read once and multiplied once a digit. Sums are int32 and wrap; shifts and the last additions wrap too.

|d| <= 2^7, |w| < 2^7 -> |d * w| <= 127 * 128 = 16256. LOAD-BEARING: 16256 * 2^17 < 2^31, so no sum of at most
`DEPTH_LIMIT` products leaves int32. Some tensor core instructions that Triton chooses (mma.sync, for few rows)
saturate; within this depth they cannot. A longer sum is split, and its parts are added with wrap-around.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from slalom.arithmetic.digits import BALANCE as _BALANCE
from slalom.device.kernels.stacked import multiply_stacked
from slalom.device.kernels.tiles import Tile, can_stack, choose_block, choose_tile
from slalom.errors import ApiMisuse
from slalom.plan.shapes import Geometry

DEPTH_LIMIT = 2**17
WIDEST_TILE = 256
_INDEX_LIMIT = 2**31

BALANCE = tl.constexpr(_BALANCE)


@triton.jit
def _digit(balanced, position: tl.constexpr):
    """Byte `position` of balanced words: their digit (`arithmetic.digits`)."""
    return (balanced >> (8 * position)).to(tl.int8)


@triton.jit(
    do_not_specialize=[
        "all_pixels", "group_outputs", "height", "width", "output_pixels", "output_width", "kernel_width",
        "depth", "stride_rows", "stride_columns", "top", "left", "dilation_rows", "dilation_columns", "steps",
        "steps_each", "channel_blocks",
    ]
)  # fmt: skip
def _convolve(
    words, weights, out,
    all_pixels, input_row, input_size, packed_depth, output_row,
    group_outputs, padded_outputs, group_inputs, height, width, output_pixels, output_width, kernel_width, depth,
    stride_rows, stride_columns, top, left, dilation_rows, dilation_columns,
    steps, steps_each, channel_blocks,
    DIGITS: tl.constexpr, FLAT: tl.constexpr, EVEN: tl.constexpr, SPLIT: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """One tile: ROWS output pixels by COLUMNS output channels of one group, and one part of the depth."""
    column_tiles = tl.cdiv(group_outputs, COLUMNS)
    tile = tl.program_id(0)
    group = tl.program_id(1).to(tl.int64)
    part = tl.program_id(2)
    m = (tile // column_tiles) * ROWS + tl.arange(0, ROWS)
    n = (tile % column_tiles) * COLUMNS + tl.arange(0, COLUMNS)
    k = tl.arange(0, BLOCK)

    item = m // output_pixels
    pixel = m % output_pixels
    first_row = (pixel // output_width) * stride_rows - top
    first_column = (pixel % output_width) * stride_columns - left
    inside = m < all_pixels
    # 64 bits: a batch may hold more than 2^31 elements; an item holds fewer, so offsets within it are int32
    start = words + item.to(tl.int64) * input_size + group * group_inputs
    weight_rows = group * padded_outputs + n  # padded with zeros to whole tiles, in outputs and in depth
    weight_pointers = weights + weight_rows[None, :] * packed_depth + k[:, None]

    total = tl.zeros((ROWS, COLUMNS), dtype=tl.int32)
    total_1 = tl.zeros((ROWS, COLUMNS), dtype=tl.int32)
    total_2 = tl.zeros((ROWS, COLUMNS), dtype=tl.int32)
    total_3 = tl.zeros((ROWS, COLUMNS), dtype=tl.int32)
    for step in range(part * steps_each, tl.minimum(part * steps_each + steps_each, steps)):
        if FLAT:
            flat = step * BLOCK + k
            tap, channel = flat // group_inputs, flat % group_inputs
            row = first_row[:, None] + ((tap // kernel_width) * dilation_rows)[None, :]
            column = first_column[:, None] + ((tap % kernel_width) * dilation_columns)[None, :]
            valid = inside[:, None] & (row >= 0) & (row < height) & (column >= 0) & (column < width)
            valid = valid & (flat < depth)[None, :]
            offset = (row * width + column) * input_row + channel[None, :]
        else:
            tap = step // channel_blocks
            channel = (step % channel_blocks) * BLOCK + k
            row = first_row + (tap // kernel_width) * dilation_rows
            column = first_column + (tap % kernel_width) * dilation_columns
            valid = (inside & (row >= 0) & (row < height) & (column >= 0) & (column < width))[:, None]
            if not EVEN:
                valid = valid & (channel < group_inputs)[None, :]
            offset = ((row * width + column) * input_row)[:, None] + channel[None, :]
        x = tl.load(start[:, None] + offset, mask=valid, other=0)
        w = tl.load(weight_pointers + step * BLOCK)
        if DIGITS == 1:
            total = tl.dot(x.to(tl.int8), w, total, out_dtype=tl.int32)
        else:
            balanced = (x.to(tl.int32) + BALANCE) ^ BALANCE  # wraps mod 2^32; byte k is digit k
            total = tl.dot(_digit(balanced, 0), w, total, out_dtype=tl.int32)
            total_1 = tl.dot(_digit(balanced, 1), w, total_1, out_dtype=tl.int32)
            if DIGITS == 4:
                total_2 = tl.dot(_digit(balanced, 2), w, total_2, out_dtype=tl.int32)
                total_3 = tl.dot(_digit(balanced, 3), w, total_3, out_dtype=tl.int32)
    if DIGITS > 1:
        total += total_1 << 8
        total += (total_2 << 16) + (total_3 << 24)

    to = out + m.to(tl.int64)[:, None] * output_row + (group * group_outputs + n)[None, :]
    written = inside[:, None] & (n < group_outputs)[None, :]
    if SPLIT:
        tl.atomic_add(to, total, mask=written, sem="relaxed")  # integers that wrap: any order gives the same sum
    else:
        tl.store(to, total, mask=written)


@dataclass(frozen=True, eq=False)
class PackedWeights:
    """Weights as the kernel reads them: int8 [groups, padded outputs, packed depth], the depth contiguous.

    `flat`: the depth is (tap, channel) without gaps, else every tap's channels are padded to whole blocks of `block`.
    """

    geometry: Geometry
    tensor: Tensor
    flat: bool
    block: int

    @property
    def packed_depth(self) -> int:
        """Elements of one output channel, padding included."""
        return int(self.tensor.shape[2])

    @property
    def channels(self) -> int:
        """Channels of one tap, padding included; everything, where the depth is flat."""
        return self.packed_depth // (1 if self.flat else self.geometry.taps)

    @property
    def channel_blocks(self) -> int:
        """Blocks of one tap; of everything, where the depth is flat."""
        return self.channels // self.block


def pack_weights(geometry: Geometry, weight: Tensor) -> PackedWeights:
    """Packs int8 weights of `geometry.weight_shape` (any shape of as many elements), on their device."""
    flat, block = choose_block(geometry)
    groups, inputs, outputs = geometry.groups, geometry.group_inputs, geometry.group_outputs
    kernel = weight.reshape(geometry.taps, inputs, groups, outputs).permute(2, 3, 0, 1)
    if flat:
        kernel = kernel.reshape(groups, outputs, 1, geometry.taps * inputs)
    padding = (0, -kernel.shape[-1] % block, 0, 0, 0, -outputs % WIDEST_TILE)
    packed = torch.nn.functional.pad(kernel, padding).reshape(groups, outputs + padding[-1], -1).contiguous()
    return PackedWeights(geometry, packed, flat, block)


def convolve(words: Tensor, packed: PackedWeights, out: Tensor, digits: int, tile: Tile | None = None) -> None:
    """Writes the map of `words` into `out`, int32 [B, OH, OW, C], exact mod 2**32.

    words: int16 or int32 [B, H, W, C]; `digits` 1, 2 or 4, enough for every word (1: -128..127, 2: -32896..32639).
    `tile` is one to force, for tests and measurements. Raises ApiMisuse for an image beyond 2^31 elements.
    """
    geometry = packed.geometry
    if digits not in (1, 2, 4):
        raise ApiMisuse(f"a convolution takes 1, 2 or 4 digits, not {digits}")
    height, width, _ = geometry.input_image
    if max(words[0].numel(), out[0].numel()) >= _INDEX_LIMIT:
        raise ApiMisuse("an image of 2^31 elements or more does not fit the kernels")
    padded = (height + sum(geometry.padding[:2])) * (width + sum(geometry.padding[2:]))
    # rows of one launch, which are at most 4 digits of a padded pixel, are counted in int32
    items = max(1, (_INDEX_LIMIT - 2**16) // (4 * max(padded, geometry.pixels)))
    for start in range(0, len(words), items):
        part, result = words[start : start + items], out[start : start + items]
        chosen = tile or choose_tile(geometry, len(part), digits)
        if chosen.stacked and not packed.flat and can_stack(geometry) and packed.channels % chosen.block == 0:
            multiply_stacked(part, packed.tensor[0], geometry, result, digits, chosen)
        else:
            _launch(part, packed, result, digits, chosen)


def _launch(words: Tensor, packed: PackedWeights, out: Tensor, digits: int, tile: Tile) -> None:
    geometry = packed.geometry
    height, width, channels = geometry.input_image
    _, output_width, output_channels = geometry.output_image
    all_pixels = len(words) * geometry.pixels
    steps = packed.packed_depth // packed.block
    parts = max(tile.parts, -(-packed.packed_depth // DEPTH_LIMIT))
    steps_each = -(-steps // parts)
    parts = -(-steps // steps_each)
    if parts > 1:
        out.zero_()
    grid = (-(-all_pixels // tile.rows) * -(-geometry.group_outputs // tile.columns), geometry.groups, parts)
    _convolve[grid](
        words, packed.tensor, out,
        all_pixels, channels, height * width * channels, packed.packed_depth, output_channels,
        geometry.group_outputs, packed.tensor.shape[1], geometry.group_inputs, height, width,
        geometry.pixels, output_width, geometry.kernel[1], geometry.taps * geometry.group_inputs,
        *geometry.stride, geometry.padding[0], geometry.padding[2], *geometry.dilation,
        steps, steps_each, packed.channel_blocks,
        DIGITS=digits, FLAT=packed.flat, EVEN=geometry.group_inputs % packed.block == 0,
        SPLIT=parts > 1, ROWS=tile.rows, COLUMNS=tile.columns, BLOCK=packed.block,
        num_warps=tile.warps, num_stages=tile.stages,
    )  # fmt: skip
