"""Hiding an input from the device: the one-time pad in the group Z/2^32.

A word is an element of the group, written as the signed integer nearest to zero: for 2^32 exactly an int32.
"""

from __future__ import annotations

from random import Random

import numpy as np

from reference.check import Layer
from reference.linear import Integers, apply_step
from slalom.plan.steps import Shape

WORDS = 2**32


def draw_mask(shape: Shape, random: Random, modulus: int = WORDS) -> Integers:
    """A mask r of uniform words, [batch, *input]. It is used once."""
    words = [random.randrange(modulus) for _ in range(int(np.prod(shape)))]
    return signed(np.array(words, dtype=object).reshape(shape), modulus)


def blind(x: Integers, mask: Integers, modulus: int = WORDS) -> Integers:
    """x + r mod 2^32: uniform whatever x is, so it tells nothing."""
    return signed(x.astype(object) + mask, modulus)


def mask_image(layer: Layer, mask: Integers, modulus: int = WORDS) -> Integers:
    """u = W·r mod 2^32, made inside, before the input is known."""
    return signed(apply_step(layer.step, layer.tensors, mask), modulus)


def unblind(claim: Integers, image: Integers, modulus: int = WORDS) -> Integers:
    """W·(x + r) - u mod 2^32 as signed integers, which is W·x because |W·x| <= 2^31 - 1 was proved."""
    return signed(claim.astype(object) - image, modulus)


def signed(values: Integers, modulus: int = WORDS) -> Integers:
    """Each integer's representative in -modulus/2 .. modulus/2 - 1."""
    half = modulus // 2
    words = (values.astype(object) + half) % modulus - half
    return np.asarray(words.astype(np.int64) if modulus <= WORDS else words)
