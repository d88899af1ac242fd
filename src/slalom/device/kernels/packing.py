"""Claims of 3 bytes an element: the low bytes of y, little-endian, which give y back where |y| < 2^23.

Only a plain accumulator with a proved bound below 2^23 may be packed; blinded words use all their 32 bits.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from slalom.errors import ApiMisuse

PACKED_SIZE = 3
PACKED_LIMIT = 2**23
_BLOCK = 2048


@triton.jit
def _pack(claim, out, size, BLOCK: tl.constexpr):
    place = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    valid = place < size
    y = tl.load(claim + place // 3, mask=valid, other=0)
    tl.store(out + place, (y >> ((place % 3) * 8).to(tl.int32)).to(tl.uint8), mask=valid)


def pack_claim(claim: Tensor, out: Tensor) -> None:
    """Writes the low 3 bytes of every int32 of `claim` into `out`, uint8, 3 times as many. Raises ApiMisuse."""
    size = PACKED_SIZE * claim.numel()
    if out.numel() != size:
        raise ApiMisuse(f"a claim of {claim.numel()} elements packs into {size} bytes, not {out.numel()}")
    _pack[(-(-size // _BLOCK),)](claim, out, size, BLOCK=_BLOCK)


def packed_claim(claim: Tensor) -> Tensor:
    """The low 3 bytes of every int32 of `claim`, uint8 [3 * elements]."""
    out = torch.empty(PACKED_SIZE * claim.numel(), dtype=torch.uint8, device=claim.device)
    pack_claim(claim, out)
    return out
