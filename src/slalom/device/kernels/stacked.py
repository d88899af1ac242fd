"""A linear map of stride 1 as one plain product of signed bytes, fed by the copy engine: exact mod 2**32.

A pass before it takes the words apart into rows of bytes, padding included: row (p, k) holds digit k of every channel
of padded pixel p. In that matrix the pixels that kernel position (a, b) reads are those of (0, 0), shifted by a
constant, so every tile is a rectangle of memory and no address is computed in the loop. What is computed at positions
where no output is (the last columns and rows of the padded image) is not written.

y[p, o] = sum over k of 2^(8k) * (sum over (tap, c) of rows[p + shift(tap), k, c] * w[tap, c, o]). Sums as in
`convolution`: int32, at most 2^17 products in one, wrapping where they are shifted and added.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.tools.tensor_descriptor import TensorDescriptor

from slalom.arithmetic.digits import BALANCE as _BALANCE
from slalom.device.kernels.tiles import Tile
from slalom.plan.shapes import Geometry

BALANCE = tl.constexpr(_BALANCE)
_SPREAD_ELEMENTS = 4096  # of one program
_DEEPEST = 2**17  # products of one sum: see convolution.DEPTH_LIMIT


@triton.jit(do_not_specialize=["height", "width", "top", "left", "padded_height", "padded_width"])
def _spread(
    words, rows,
    height, width, channels, top, left, padded_height, padded_width,
    STRIDE_ROWS: tl.constexpr, STRIDE_COLUMNS: tl.constexpr, DIGITS: tl.constexpr,
    PIXELS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """Some pixels of one padded row, and some of their channels: no division for an element."""
    line = tl.program_id(0)
    item, i = (line // padded_height).to(tl.int64), line % padded_height
    j = tl.program_id(1) * PIXELS + tl.arange(0, PIXELS)
    channel = tl.program_id(2) * CHANNELS + tl.arange(0, CHANNELS)
    row, column = i * STRIDE_ROWS - top, j * STRIDE_COLUMNS - left
    written = (j < padded_width)[:, None] & (channel < channels)[None, :]
    inside = written & ((row >= 0) & (row < height) & (column >= 0) & (column < width))[:, None]
    image = words + item * height * width * channels
    x = tl.load(image + ((row * width + column) * channels)[:, None] + channel[None, :], mask=inside, other=0)
    balanced = (x.to(tl.int32) + BALANCE) ^ BALANCE  # wraps mod 2^32; byte k is digit k
    to = rows + line.to(tl.int64) * padded_width * DIGITS * channels
    for position in tl.static_range(DIGITS):
        place = ((j * DIGITS + position) * channels)[:, None] + channel[None, :]
        tl.store(to + place, (balanced >> (8 * position)).to(tl.int8), mask=written)


@triton.jit(
    do_not_specialize=[
        "all_pixels", "padded_pixels", "padded_width", "output_height", "output_width", "outputs", "kernel_width",
        "shift_rows", "shift_columns", "steps", "steps_each", "channel_blocks",
    ]
)  # fmt: skip
def _multiply(
    rows, weights, out,
    all_pixels, padded_pixels, padded_width, output_height, output_width, outputs, output_row,
    kernel_width, shift_rows, shift_columns, steps, steps_each, channel_blocks,
    DIGITS: tl.constexpr, SPLIT: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    PIXELS: tl.constexpr = ROWS // DIGITS
    column_tiles = tl.cdiv(outputs, COLUMNS)
    first_pixel = (tl.program_id(0) // column_tiles) * PIXELS
    first_output = (tl.program_id(0) % column_tiles) * COLUMNS
    part = tl.program_id(1)
    total = tl.zeros((ROWS, COLUMNS), dtype=tl.int32)
    for step in range(part * steps_each, tl.minimum(part * steps_each + steps_each, steps)):
        tap = step // channel_blocks
        shift = (tap // kernel_width) * shift_rows + (tap % kernel_width) * shift_columns
        x = rows.load([(first_pixel + shift) * DIGITS, (step % channel_blocks) * BLOCK])
        w = weights.load([first_output, step * BLOCK])
        total = tl.dot(x, w.T, total, out_dtype=tl.int32)
    if DIGITS > 1:
        total = total << (8 * (tl.arange(0, ROWS) % DIGITS))[:, None]
        total = tl.sum(tl.reshape(total, (PIXELS, DIGITS, COLUMNS)), axis=1)
    pixel = first_pixel + tl.arange(0, PIXELS)
    item, place = pixel // padded_pixels, pixel % padded_pixels
    i, j = place // padded_width, place % padded_width
    n = first_output + tl.arange(0, COLUMNS)
    inside = (pixel < all_pixels) & (i < output_height) & (j < output_width)
    written = inside[:, None] & (n < outputs)[None, :]
    position = (item.to(tl.int64) * output_height + i) * output_width + j
    to = out + position[:, None] * output_row + n[None, :]
    if SPLIT:
        tl.atomic_add(to, total, mask=written, sem="relaxed")  # integers that wrap: any order gives the same sum
    else:
        tl.store(to, total, mask=written)


def stack_digits(words: Tensor, geometry: Geometry, digits: int) -> tuple[Tensor, tuple[int, int]]:
    """The rows of bytes, int8 [B * padded pixels * digits, C], and the padded image (height, width).

    Under a 1x1 kernel only the pixels that it reads are taken, so that the padded image is the output's.
    """
    height, width, channels = geometry.input_image
    top, bottom, left, right = geometry.padding
    one = geometry.taps == 1
    padded = geometry.output_image[:2] if one else (top + height + bottom, left + width + right)
    lines = len(words) * padded[0]
    rows = torch.empty((lines * padded[1] * digits, channels), dtype=torch.int8, device=words.device)
    channel_block = min(256, 1 << (channels - 1).bit_length())
    pixel_block = max(1, min(_SPREAD_ELEMENTS // channel_block, 1 << (padded[1] - 1).bit_length()))
    grid = (lines, -(-padded[1] // pixel_block), -(-channels // channel_block))
    stride = geometry.stride if one else (1, 1)
    _spread[grid](
        words, rows, height, width, channels, top, left, *padded,
        STRIDE_ROWS=stride[0], STRIDE_COLUMNS=stride[1], DIGITS=digits,
        PIXELS=pixel_block, CHANNELS=channel_block,
    )  # fmt: skip
    return rows, (padded[0], padded[1])


def multiply_stacked(words: Tensor, weights: Tensor, geometry: Geometry, out: Tensor, digits: int, tile: Tile) -> None:
    """Writes the map of `words` into `out`, as `convolution.convolve` does.

    weights: int8 [padded outputs, packed depth], each tap's channels padded to whole blocks of `tile.block`.
    """
    rows, padded = stack_digits(words, geometry, digits)
    steps = weights.shape[1] // tile.block
    parts = max(tile.parts, -(-weights.shape[1] // _DEEPEST))
    steps_each = -(-steps // parts)
    parts = -(-steps // steps_each)
    if parts > 1:
        out.zero_()
    all_pixels = len(words) * padded[0] * padded[1]
    outputs = geometry.output_image[2]
    grid = (-(-all_pixels // (tile.rows // digits)) * -(-outputs // tile.columns), parts)
    _multiply[grid](
        TensorDescriptor.from_tensor(rows, [tile.rows, tile.block]),
        TensorDescriptor.from_tensor(weights, [tile.columns, tile.block]),
        out, all_pixels, padded[0] * padded[1], padded[1], *geometry.output_image[:2], outputs, outputs,
        geometry.kernel[1], geometry.dilation[0] * padded[1], geometry.dilation[1],
        steps, steps_each, steps // geometry.taps,
        DIGITS=digits, SPLIT=parts > 1, ROWS=tile.rows, COLUMNS=tile.columns, BLOCK=tile.block,
        num_warps=tile.warps, num_stages=tile.stages,
    )  # fmt: skip
