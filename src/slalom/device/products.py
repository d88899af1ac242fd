"""Matrix products that are exact mod 2**32 on torch: signed byte digits in int32, or whole words in float64."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import torch
from torch import Tensor

from slalom.arithmetic.digits import BALANCE, digits_needed


class Product(Protocol):
    """rows @ weight mod 2**32, with the words of an image as one or more planes of numbers that this product takes."""

    name: str

    def pack(self, weight: Tensor) -> Tensor:
        """int8 [K, N] as `multiply` reads it; done once."""

    def plane_count(self, image: Tensor) -> int:
        """How many planes the words of this image need."""

    def spread(self, image: Tensor, planes: list[Tensor]) -> None:
        """Writes an int16 or int32 image into `planes`, each of the image's shape and of dtype `dtype`."""

    @property
    def dtype(self) -> torch.dtype:
        """The type of a plane's numbers."""

    def multiply(self, rows: Tensor, packed: Tensor, out: Tensor) -> None:
        """Writes the product of rows [planes, M, K], C-contiguous, and [K, N] into `out`, int32 [M, N] or a view."""


class ByteProduct:
    """One product of signed bytes a digit, summed in int32. Exact where the processor's s8*s8 sums do not saturate."""

    name = "bytes"
    dtype = torch.int8
    # |d| <= 2^7, |w| < 2^7, 2^16 terms -> |sum| < 2^30: no int32 sum wraps, let alone saturates
    depth = 2**16

    def pack(self, weight: Tensor) -> Tensor:
        """The weights as they are."""
        return weight.contiguous()

    def plane_count(self, image: Tensor) -> int:
        """The digits that the image's least and greatest word need: 1..4."""
        low, high = image.aminmax()
        return digits_needed(int(low), int(high))

    def spread(self, image: Tensor, planes: list[Tensor]) -> None:
        """The balanced digits, lowest first; see `arithmetic.digits`."""
        digits = (image.to(torch.int32) + BALANCE) ^ BALANCE  # wraps mod 2**32; byte k is digit k
        for position, plane in enumerate(planes):
            plane.copy_(digits if position == 0 else digits >> (8 * position))  # int8 keeps the low byte

    def multiply(self, rows: Tensor, packed: Tensor, out: Tensor) -> None:
        """sum over k of 2^(8k) * (rows[k] @ weight), wrapping."""
        planes, count, _ = rows.shape
        out.zero_()
        for block in _blocks(packed.shape[0], self.depth):
            left = rows.reshape(planes * count, -1)[:, block]
            product = torch._int_mm(left.contiguous(), packed[block]).view(planes, *out.shape)
            for position in range(planes):
                out.add_(product[position], alpha=1 << (8 * position))


class FloatProduct:
    """One product in float64, whose sums stay below 2^53. Exact everywhere."""

    name = "float64"
    dtype = torch.float64
    # |x| <= 2^31, |w| < 2^7, 2^14 terms -> every partial sum < 2^52, exact in any order
    depth = 2**14

    def pack(self, weight: Tensor) -> Tensor:
        """The weights in float64."""
        return weight.to(torch.float64)

    def plane_count(self, image: Tensor) -> int:
        """One: float64 holds every word."""
        return 1

    def spread(self, image: Tensor, planes: list[Tensor]) -> None:
        """The words themselves."""
        planes[0].copy_(image)

    def multiply(self, rows: Tensor, packed: Tensor, out: Tensor) -> None:
        """The product in blocks of K; each block's integers, < 2^52, are cut to their low 32 bits."""
        out.zero_()
        for block in _blocks(packed.shape[0], self.depth):
            product = rows[0][:, block] @ packed[block]
            out.add_(product.to(torch.int64).to(torch.int32).view(out.shape))


def _blocks(depth: int, limit: int) -> Iterator[slice]:
    for start in range(0, depth, limit):
        yield slice(start, min(depth, start + limit))
