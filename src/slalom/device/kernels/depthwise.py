"""A linear map of one input channel a group, in int32: y[m, o] = sum over taps of x[m, tap, o / width] * w[tap, o].

Two elements of memory for every few products, so this is bound by memory and needs no tensor cores. int32 products and
sums wrap mod 2^32, which is the arithmetic wanted for any words.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from slalom.plan.shapes import Geometry

_BLOCK = 512


@triton.jit(
    do_not_specialize=[
        "pixels", "height", "width", "output_width", "stride_rows", "stride_columns", "top", "left", "dilation_rows",
        "dilation_columns",
    ]
)  # fmt: skip
def _convolve_depthwise(
    words, weights, out,
    pixels, height, width, channels, output_width, output_channels,
    stride_rows, stride_columns, top, left, dilation_rows, dilation_columns, blocks,
    MULTIPLE: tl.constexpr, KERNEL_HEIGHT: tl.constexpr, KERNEL_WIDTH: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    item = (tl.program_id(0) // blocks).to(tl.int64)
    element = (tl.program_id(0) % blocks) * BLOCK + tl.arange(0, BLOCK)
    output = element % output_channels
    pixel = element // output_channels
    inside = pixel < pixels
    first_row = (pixel // output_width) * stride_rows - top
    first_column = (pixel % output_width) * stride_columns - left
    source = words + item * height * width * channels + output // MULTIPLE
    total = tl.zeros((BLOCK,), dtype=tl.int32)
    for a in tl.static_range(KERNEL_HEIGHT):
        for b in tl.static_range(KERNEL_WIDTH):
            row, column = first_row + a * dilation_rows, first_column + b * dilation_columns
            valid = inside & (row >= 0) & (row < height) & (column >= 0) & (column < width)
            x = tl.load(source + (row * width + column) * channels, mask=valid, other=0).to(tl.int32)
            w = tl.load(weights + (a * KERNEL_WIDTH + b) * output_channels + output).to(tl.int32)
            total += x * w
    tl.store(out + item * pixels * output_channels + element, total, mask=inside)


def convolve_depthwise(words: Tensor, weight: Tensor, out: Tensor, geometry: Geometry) -> None:
    """Writes the map of `words`, int16 or int32 [B, H, W, C], into `out`, int32 [B, OH, OW, Cout], exact mod 2**32.

    weight: int8 [taps, Cout]. An item of either image has fewer than 2^31 elements.
    """
    height, width, channels = geometry.input_image
    blocks = -(-geometry.pixels * geometry.output_image[2] // _BLOCK)
    _convolve_depthwise[(len(words) * blocks,)](
        words, weight, out,
        geometry.pixels, height, width, channels, geometry.output_image[1], geometry.output_image[2],
        *geometry.stride, geometry.padding[0], geometry.padding[2], *geometry.dilation, blocks,
        MULTIPLE=geometry.group_outputs, KERNEL_HEIGHT=geometry.kernel[0], KERNEL_WIDTH=geometry.kernel[1],
        BLOCK=_BLOCK,
    )  # fmt: skip
