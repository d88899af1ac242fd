"""A word's digits as planes of bytes: what `arithmetic.digits.to_digits` gives, on the device."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from slalom.arithmetic.digits import BALANCE as _BALANCE

BALANCE = tl.constexpr(_BALANCE)
_BLOCK = 1024


@triton.jit
def _split(words, planes, count, DIGITS: tl.constexpr, BLOCK: tl.constexpr):
    offset = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    valid = offset < count
    x = tl.load(words + offset, mask=valid, other=0).to(tl.int32)
    balanced = (x + BALANCE) ^ BALANCE  # wraps mod 2^32; byte k is digit k
    for position in tl.static_range(DIGITS):
        tl.store(planes + position * count.to(tl.int64) + offset, (balanced >> (8 * position)).to(tl.int8), mask=valid)


def split_digits(words: Tensor, digits: int) -> Tensor:
    """The digits int8 [digits, *shape], lowest first, of int16 or int32 words."""
    planes = torch.empty((digits, *words.shape), dtype=torch.int8, device=words.device)
    count = words.numel()
    _split[(-(-count // _BLOCK),)](words, planes, count, DIGITS=digits, BLOCK=_BLOCK)
    return planes
