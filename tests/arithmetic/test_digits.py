"""Balanced digits: every word comes back, and every digit is the one its definition gives."""

from __future__ import annotations

import numpy as np
import pytest

from slalom.arithmetic.digits import digit_range, digits_needed, from_digits, to_digits
from slalom.errors import ApiMisuse

EDGES = [-(2**31), 2**31 - 1, -1, 0, 1, 127, 128, -128, -129, 32639, 32640, -32896, -32897, 0x7F7F7F7F, 0x7F7F7F80]


def digits_of(word: int, count: int) -> list[int]:
    """The definition: take the digit in -128..127 congruent to the word mod 256, subtract it, divide."""
    digits = []
    for _ in range(count):
        digit = (word + 128) % 256 - 128
        digits.append(digit)
        word = (word - digit) // 256
    return digits


def words() -> np.ndarray:
    random = np.random.default_rng(1).integers(-(2**31), 2**31, 500)
    return np.array([*EDGES, *random], np.int64).astype(np.int32)


def test_digits_are_those_of_the_definition() -> None:
    expected = np.array([digits_of(int(word), 4) for word in words()]).T
    np.testing.assert_array_equal(to_digits(words(), 4), expected)


def test_four_digits_hold_every_word() -> None:
    shaped = words()[:510].reshape(5, 3, 34)
    np.testing.assert_array_equal(from_digits(to_digits(shaped, 4)), shaped)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_fewer_digits_hold_exactly_their_range(count: int) -> None:
    least, greatest = digit_range(count)
    inside = np.array([least, greatest, 0, least // 2, greatest // 3], np.int32)
    outside = np.array([least - 1, greatest + 1], np.int32)
    np.testing.assert_array_equal(from_digits(to_digits(inside, count)), inside)
    assert not np.any(from_digits(to_digits(outside, count)) == outside)
    assert digits_needed(least, greatest) == count
    assert digits_needed(least - 1, 0) == digits_needed(0, greatest + 1) == count + 1


def test_activations_take_two_digits_and_words_four() -> None:
    assert digits_needed(-16383, 16383) == 2
    assert digits_needed(-(2**15), 2**15 - 1) == 3
    assert digits_needed(-(2**31), 2**31 - 1) == 4
    activation = np.arange(-16383, 16384, dtype=np.int16)
    assert to_digits(activation, 2).dtype == np.int8
    np.testing.assert_array_equal(from_digits(to_digits(activation, 2)), activation)


def test_products_of_digits_meet_again_mod_2_32() -> None:
    products = to_digits(words(), 4).astype(np.int32) * np.int32(-127)
    np.testing.assert_array_equal(from_digits(products), words() * np.int32(-127))


@pytest.mark.parametrize("count", [0, 5])
def test_other_counts_are_refused(count: int) -> None:
    with pytest.raises(ApiMisuse, match=r"1\.\.4 digits"):
        to_digits(words(), count)
