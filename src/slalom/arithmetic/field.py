"""The field F_p of the checks, p = 2**51 - 129: elements are uint64 in 0..p-1.

2**51 = 129 and 2**52 = 258 mod p, so every product folds back with shifts and two small constants.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

P = 2**51 - 129

Elements = NDArray[np.uint64]

_LIMB_BITS = 26
_PLANE_BITS = 17
_DOT_TERMS = 2**14


def reduce(values: NDArray[Any]) -> Elements:
    """Integers mod p, for any integer array: signed, unsigned, or Python integers (dtype object)."""
    if values.dtype == np.uint64:
        return values % np.uint64(P)
    if values.dtype == object:
        return (values % P).astype(np.uint64)
    return (values.astype(np.int64, copy=False) % np.int64(P)).astype(np.uint64)


def add(a: Elements, b: Elements) -> Elements:
    """(a + b) mod p, elementwise, for elements of the field."""
    return _subtract_once(a + b)  # a, b < p -> a + b < 2p < 2**52


def subtract(a: Elements, b: Elements) -> Elements:
    """(a - b) mod p, elementwise, for elements of the field."""
    return _subtract_once(a + (np.uint64(P) - b))  # a < p, 0 < p - b <= p -> sum < 2p


def multiply(a: Elements, b: Elements | np.uint64) -> Elements:
    """(a * b) mod p, elementwise, for elements of the field."""
    limb = np.uint64(_LIMB_BITS)
    mask = np.uint64(2**_LIMB_BITS - 1)
    a_low, a_high = a & mask, a >> limb  # < 2**26, < 2**25
    b_low, b_high = b & mask, b >> limb
    low = a_low * b_low  # < 2**52
    high = a_high * b_high  # < 2**50, weighs 2**52 = 258
    middle = a_high * b_low + a_low * b_high  # < 2 * 2**51 = 2**52, weighs 2**26
    # middle * 2**26 = (middle >> 25) * 2**51 + (middle & (2**25 - 1)) * 2**26
    folded = (middle >> np.uint64(25)) * np.uint64(129)  # < 2**27 * 2**8 = 2**35
    shifted = (middle & np.uint64(2**25 - 1)) << limb  # < 2**51
    return _fold(high * np.uint64(258) + low + folded + shifted)  # < 2**59 + 2**52 + 2**35 + 2**51 < 2**60


def sum(values: Elements) -> Elements:
    """The sum over the last axis mod p, for elements of the field and fewer than 2**37 terms."""
    limb = np.uint64(_LIMB_BITS)
    # each limb < 2**26; 2**37 terms -> < 2**63
    low = np.sum(values & np.uint64(2**_LIMB_BITS - 1), axis=-1, dtype=np.uint64)
    high = np.sum(values >> limb, axis=-1, dtype=np.uint64)
    return add(reduce(np.asarray(low)), multiply(reduce(np.asarray(high)), np.uint64(2**_LIMB_BITS)))


def dot(values: NDArray[np.int16] | NDArray[np.int32], probe: Elements) -> Elements:
    """<values, probe> mod p for each row: signed integers [B, M] and elements [M] give elements [B]."""
    total = np.zeros(values.shape[0], np.uint64)
    mask = np.uint64(2**_PLANE_BITS - 1)
    for begin in range(0, values.shape[1], _DOT_TERMS):
        chunk = values[:, begin : begin + _DOT_TERMS].astype(np.int64)
        elements = probe[begin : begin + _DOT_TERMS]
        for shift in range(0, 3 * _PLANE_BITS, _PLANE_BITS):
            plane = ((elements >> np.uint64(shift)) & mask).astype(np.int64)
            # |y| <= 2**31, plane < 2**17 -> |product| < 2**48; 2**14 terms -> < 2**62
            total = add(total, multiply(reduce(chunk @ plane), np.uint64(2**shift)))
    return total


def _fold(values: Elements) -> Elements:
    """Any uint64 mod p."""
    # (values >> 51) < 2**13 -> the sum < 2**51 + 2**13 * 129 < 2p
    return _subtract_once((values & np.uint64(2**51 - 1)) + (values >> np.uint64(51)) * np.uint64(129))


def _subtract_once(values: Elements) -> Elements:
    """Values below 2p mod p, without a branch on them."""
    return values - np.uint64(P) * (values >= np.uint64(P)).astype(np.uint64)
