"""Softmax rows: exp(v - max) / sum or its logarithm, v = q * scale, the sum by halves as the trusted side makes it."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from slalom.arithmetic.pointwise import Requantisation
from slalom.device.kernels.functions import exp, log, requantise


@triton.jit
def _softmax(
    source, out, count, scale, inverse, limit,
    LEVELS: tl.constexpr, LOGARITHM: tl.constexpr, REQUANTISED: tl.constexpr,
):  # fmt: skip
    WIDTH: tl.constexpr = 1 << LEVELS
    element = tl.arange(0, WIDTH)
    inside = element < count
    row = tl.program_id(0).to(tl.int64) * count
    q = tl.load(source + row + element, mask=inside, other=-32768)
    v = q.to(tl.float32) * scale
    shifted = v - tl.max(v, axis=0)  # every row has an element within, all of them above the filling
    powers = exp(shifted)
    total = tl.where(inside, powers, 0.0)
    for level in tl.static_range(LEVELS):
        # first half plus second half: one addition each, in either order
        total = tl.sum(tl.reshape(total, (2, WIDTH >> (level + 1))), axis=0)
    total = tl.reshape(total, (1,))
    if LOGARITHM:
        result = shifted - log(total)
    else:
        result = tl.div_rn(powers, tl.broadcast_to(total, (WIDTH,)))
    if REQUANTISED:
        tl.store(out + row + element, requantise(result, inverse, limit), mask=inside)
    else:
        tl.store(out + row + element, result, mask=inside)


def softmax(source: Tensor, scale: float, logarithm: bool, output: Requantisation | None) -> Tensor:
    """Over the last axis of int16 [B, ..., L]: float32 of that shape, or int16 where `output` requantises."""
    out = torch.empty(source.shape, dtype=torch.float32 if output is None else torch.int16, device=source.device)
    count = source.shape[-1]
    # LOAD-BEARING: enable_fp_fusion=False, as for every float32 kernel here
    _softmax[(source.numel() // count,)](
        source, out, count, scale,
        1.0 if output is None else float(output.inverse), 0.0 if output is None else float(output.limit),
        LEVELS=(count - 1).bit_length(), LOGARITHM=logarithm, REQUANTISED=output is not None, enable_fp_fusion=False,
    )  # fmt: skip
    return out
