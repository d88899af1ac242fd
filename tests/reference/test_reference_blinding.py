"""Blinding and unblinding are exact at the ends of the group."""

from __future__ import annotations

from random import Random

import numpy as np
import pytest

from reference.blinding import WORDS, blind, draw_mask, mask_image, signed, unblind
from reference.check import Layer
from reference.linear import apply_step
from slalom.plan.steps import Accumulator, Convolution, Dense, Linear


def test_signed_words_are_int32() -> None:
    words = np.array([0, 2**31 - 1, 2**31, 2**32 - 1, 2**32, -1, -(2**31), -(2**31) - 1, 2**70 + 5], dtype=object)
    wanted = [0, 2**31 - 1, -(2**31), -1, 0, -1, -(2**31), 2**31 - 1, 5]
    assert signed(words).tolist() == wanted
    assert signed(words).astype(np.int32).tolist() == wanted


@pytest.mark.parametrize("modulus", [2, 7, 16, 37])
def test_signed_is_one_representative_each(modulus: int) -> None:
    words = signed(np.arange(-modulus, 2 * modulus), modulus)
    assert sorted(set(words.tolist())) == list(range(-(modulus // 2), modulus - modulus // 2))
    assert ((words - np.arange(-modulus, 2 * modulus)) % modulus == 0).all()


def test_unblinding_gives_back_the_largest_results() -> None:
    # the longest row of extreme weights and inputs that the range proof admits
    tensors = {"w": np.full((1032, 2), 127, np.int8)}
    tensors["w"][:, 1] = -127
    layer = Layer(Linear("fc", "x", (Dense("w"),), Accumulator((2,), 1032 * 127 * 16383)), tensors, (1032,))
    assert 1032 * 127 * 16383 <= 2**31 - 1 < 1033 * 127 * 16383
    x = np.full((1, 1032), 16383)
    for mask in (draw_mask(x.shape, Random(1)), np.full(x.shape, -(2**31)), np.full(x.shape, 2**31 - 1)):
        answer = signed(apply_step(layer.step, tensors, blind(x, mask)))
        y = unblind(answer, mask_image(layer, mask))
        assert y.tolist() == [[1032 * 127 * 16383, -1032 * 127 * 16383]]


def test_unblinding_commutes_with_every_map() -> None:
    random = np.random.default_rng(2)
    tensors = {"a": random.integers(-127, 128, (3, 2, 1, 4)).astype(np.int8)}
    tensors["b"] = random.integers(-127, 128, (1, 1, 4, 3)).astype(np.int8)
    maps = (Convolution("a", (2, 1), (1, 1, 0, 1), (1, 2), 2), Convolution("b", (1, 1), (0, 0, 0, 0), (1, 1), 1))
    x = random.integers(-100, 101, (3, 5, 6, 2))
    step = Linear("chain", "x", maps, Accumulator((3, 5, 3), 2**31 - 1))
    wanted = apply_step(step, tensors, x)
    layer = Layer(step, tensors, (5, 6, 2))
    mask = draw_mask(x.shape, Random(3))
    answer = signed(apply_step(step, tensors, blind(x, mask)))
    assert np.array_equal(unblind(answer, mask_image(layer, mask)), wanted)


def test_masks_differ_and_fill_the_group() -> None:
    mask = draw_mask((4, 1000), Random(4))
    assert mask.min() < -(2**31) * 0.99 and mask.max() > 2**31 * 0.99
    assert len(set(mask.ravel().tolist())) > 3990
    assert WORDS == 2**32
