"""Lies that rearrange, rescale or replace the whole claim."""

from __future__ import annotations

import numpy as np

from slalom.arithmetic.linear import Words
from slalom.attacks.cheat import Claimed, ValueCheat
from slalom.plan.steps import Linear


class Shift(ValueCheat):
    """Moves every element one place on."""

    def lie(self, step: Linear, words: Words, honest: Claimed) -> Claimed:
        """The last element comes first."""
        return np.roll(honest.reshape(-1), 1).reshape(honest.shape)


class Scale(ValueCheat):
    """Doubles every element."""

    def lie(self, step: Linear, words: Words, honest: Claimed) -> Claimed:
        """Twice the claim mod 2**32."""
        return honest + honest


class Zero(ValueCheat):
    """Answers zeros: no work at all."""

    def lie(self, step: Linear, words: Words, honest: Claimed) -> Claimed:
        """Zeros."""
        return np.zeros_like(honest)


class Negate(ValueCheat):
    """Changes every sign."""

    def lie(self, step: Linear, words: Words, honest: Claimed) -> Claimed:
        """Minus the claim mod 2**32."""
        return np.negative(honest)


class Garbage(ValueCheat):
    """Answers random words."""

    def lie(self, step: Linear, words: Words, honest: Claimed) -> Claimed:
        """Uniform words, by the seed."""
        return self.random.integers(-(2**31), 2**31, honest.shape, dtype=np.int32)


class SwapItems(ValueCheat):
    """Swaps the claims of two items of the batch; alone in its batch, an item has a bit flipped."""

    def lie(self, step: Linear, words: Words, honest: Claimed) -> Claimed:
        """The first item that differs from item 0 changes places with it."""
        order = np.arange(len(honest))
        other = next((item for item in range(1, len(honest)) if not np.array_equal(honest[0], honest[item])), 0)
        order[[0, other]] = other, 0
        return honest[order]
