"""Signed bytes for integers: balanced base-256 digits d, x = d[0] + 2^8 d[1] + 2^16 d[2] + 2^24 d[3], |d| <= 128.

A linear map with int8 weights is then one product of signed bytes a digit: y = sum of 2^(8k) * (W d[k]) mod 2**32.
One digit holds -128..127, two -32896..32639 (so every activation of up to 15 bits), four every word mod 2**32.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slalom.errors import ApiMisuse

MAXIMUM_DIGITS = 4
# 0x80808080 as int32. The bytes of x + BALANCE, less 128 each, are the digits: their carries are already spent.
BALANCE = -0x7F7F7F80


def digit_range(count: int) -> tuple[int, int]:
    """The least and the greatest integer of `count` digits: -128 * (1 + 2^8 + ...) and 127 * (1 + 2^8 + ...)."""
    if not 1 <= count <= MAXIMUM_DIGITS:
        raise ApiMisuse(f"an integer has 1..{MAXIMUM_DIGITS} digits, not {count}")
    ones = sum(256**digit for digit in range(count))
    return -128 * ones, 127 * ones


def digits_needed(low: int, high: int) -> int:
    """The fewest digits that hold every integer of low..high, words of up to 32 bits: 1..4."""
    for count in range(1, MAXIMUM_DIGITS):
        least, greatest = digit_range(count)
        if least <= low and high <= greatest:
            return count
    return MAXIMUM_DIGITS  # four digits hold every word mod 2**32


def to_digits(words: NDArray[np.int16] | NDArray[np.int32], count: int) -> NDArray[np.int8]:
    """The digits int8 [count, *shape], lowest first, of int16 or int32 words within `digit_range(count)`.

    Higher digits are dropped, so that `from_digits` gives other words back where a word is out of that range; four
    digits always suffice. Raises ApiMisuse for a count that is not 1..4.
    """
    digit_range(count)
    balance = np.int32(BALANCE)
    balanced: NDArray[Any] = np.ascontiguousarray((words.astype(np.int32) + balance) ^ balance)  # wraps mod 2**32
    planes = np.moveaxis(balanced.view(np.int8).reshape(*words.shape, MAXIMUM_DIGITS), -1, 0)
    if sys.byteorder == "big":
        planes = planes[::-1]
    return np.ascontiguousarray(planes[:count])


def from_digits(digits: NDArray[np.int8] | NDArray[np.int32]) -> NDArray[np.int32]:
    """The words int32 [*shape], mod 2**32, of digits [count, *shape] (or of the int32 products of digits)."""
    total: NDArray[np.int32] = digits[0].astype(np.int32)
    for position in range(1, len(digits)):
        total += digits[position].astype(np.int32) << np.int32(8 * position)  # wraps mod 2**32
    return total
