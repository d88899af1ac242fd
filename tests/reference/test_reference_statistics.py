"""False accepts on a tiny field: the measured rate lies in an exact binomial interval around the exact probability.

Every trial draws fresh probes against one fixed wrong claim. The interval misses a right rate once in a million
runs of another seed; the seeds are fixed, so a failure is a change of the code.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from random import Random

import numpy as np
import pytest
from scipy.stats import binom, chisquare

from reference.blinding import blind, draw_mask
from reference.check import Layer, Method, check_batched, check_direct, check_preprocessed, draw_probes
from reference.field import Field
from reference.linear import Integers, apply_step
from reference.soundness import check_error
from slalom.errors import IntegrityError
from slalom.plan.steps import Accumulator, Dense, Linear

TRIALS = 20_000
CONFIDENCE = 1 - 1e-6

TENSORS = {"w": np.array([[3, -2]], np.int8)}
ROWS = Layer(Linear("rows", "x", (Dense("w"),), Accumulator((2, 2), 2**31 - 1)), TENSORS, (2, 1))  # two positions
VECTOR = Layer(Linear("vector", "x", (Dense("w"),), Accumulator((2,), 2**31 - 1)), TENSORS, (1,))  # one position


def accepts(check: Callable[[Integers, Integers], Integers], layer: Layer, error: Integers) -> int:
    """How many of TRIALS checks accept the right result plus an error."""
    x = np.arange(len(error) * np.prod(layer.input_shape)).reshape(len(error), *layer.input_shape) - 1
    claim = apply_step(layer.step, layer.tensors, x) + error
    count = 0
    for _ in range(TRIALS):
        try:
            check(x, claim)
        except IntegrityError:
            continue
        count += 1
    return count


def interval(probability: Fraction) -> tuple[int, int]:
    low, high = binom.interval(CONFIDENCE, TRIALS, float(probability))
    return int(low), int(high)


def assert_rate(count: int, probability: Fraction) -> None:
    low, high = interval(probability)
    assert low <= count <= high, f"{count} of {TRIALS} accepted, outside {low}..{high} for {probability}"


def at_one_place(layer: Layer, batch: int = 1) -> Integers:
    error = np.zeros((batch, *layer.step.output.shape), dtype=np.int64)
    error[0].flat[1] = 7
    return error


@pytest.mark.parametrize(("modulus", "everywhere"), [(101, False), (251, True)])
def test_preprocessed_accepts_one_in_p(modulus: int, everywhere: bool) -> None:
    field = Field(Random(modulus + everywhere), modulus)
    error = np.array([[[1, -2], [50, 9]]]) if everywhere else at_one_place(ROWS)
    count = accepts(lambda x, y: check_preprocessed(ROWS, x, y, draw_probes(ROWS, 1, field), field), ROWS, error)
    assert_rate(count, Fraction(1, modulus))  # <error, s> is uniform for any error that is nonzero mod p
    assert check_error(Method.PREPROCESSED, (2, 2), 1, modulus) == Fraction(1, modulus)


@pytest.mark.parametrize("modulus", [101, 251])
def test_direct_accepts_when_either_factor_vanishes(modulus: int) -> None:
    field, p = Field(Random(modulus), modulus), Fraction(1, modulus)
    exact = 1 - (1 - p) ** 2  # an error at one place: a[i] * b[j] = 0
    count = accepts(lambda x, y: check_direct(ROWS, x, y, 1, field), ROWS, at_one_place(ROWS))
    assert_rate(count, exact)
    assert exact <= check_error(Method.DIRECT, (2, 2), 1, modulus) == 2 * p
    if modulus == 101:  # enough accepts to tell it from 1/p: the bound's factor of two is real
        assert count > interval(p)[1]


def test_direct_accepts_a_full_rank_error_less_often() -> None:
    field, p = Field(Random(5), 101), Fraction(1, 101)
    count = accepts(lambda x, y: check_direct(ROWS, x, y, 1, field), ROWS, np.array([[[1, 0], [0, 1]]]))
    # a · b = 0 in two dimensions: a = 0, or b on a line
    assert_rate(count, p**2 + (1 - p**2) * p)


def test_direct_at_one_position_accepts_one_in_p() -> None:
    field = Field(Random(6), 101)
    count = accepts(lambda x, y: check_direct(VECTOR, x, y, 1, field), VECTOR, at_one_place(VECTOR))
    assert_rate(count, Fraction(1, 101))
    assert check_error(Method.DIRECT, (2,), 1, 101) == Fraction(1, 101)


def test_batched_adds_the_joining_error() -> None:
    field, p = Field(Random(101), 101), Fraction(1, 101)
    exact = p + (1 - p) * (1 - (1 - p) ** 2)  # beta = 0, or else as direct
    count = accepts(lambda x, y: check_batched(ROWS, x, y, 1, field), ROWS, at_one_place(ROWS, batch=2))
    assert_rate(count, exact)
    assert exact <= check_error(Method.BATCHED, (2, 2), 1, 101) == 3 * p
    assert count > interval(1 - (1 - p) ** 2)[1]  # and it is measurably more than direct alone


def test_batched_is_not_fooled_by_errors_that_cancel() -> None:
    field, p = Field(Random(8), 101), Fraction(1, 101)
    error = np.array([[[0, 7], [0, 0]], [[0, -7], [0, 0]]])  # a plain sum over the batch would not see it
    count = accepts(lambda x, y: check_batched(ROWS, x, y, 1, field), ROWS, error)
    assert_rate(count, p + (1 - p) * (1 - (1 - p) ** 2))


@pytest.mark.parametrize("method", list(Method))
def test_two_rounds_multiply(method: Method) -> None:
    modulus = 11  # small, so that the square is still measurable
    field, p = Field(Random(9), modulus), Fraction(1, modulus)
    one_place = 1 - (1 - p) ** 2
    exact = {Method.PREPROCESSED: p, Method.DIRECT: one_place, Method.BATCHED: p + (1 - p) * one_place}[method]
    checks = {
        Method.PREPROCESSED: lambda x, y: check_preprocessed(ROWS, x, y, draw_probes(ROWS, 2, field), field),
        Method.DIRECT: lambda x, y: check_direct(ROWS, x, y, 2, field),
        Method.BATCHED: lambda x, y: check_batched(ROWS, x, y, 2, field),
    }
    count = accepts(checks[method], ROWS, at_one_place(ROWS))
    assert_rate(count, exact**2)
    assert exact**2 <= check_error(method, (2, 2), 2, modulus)


def test_the_measure_would_notice_a_biased_probe() -> None:
    class Reduced(Random):
        """Folds 0..127 into 0..100 instead of rejecting: 0..26 come twice as often."""

        def randrange(self, *args: int) -> int:  # type: ignore[override]
            return self.getrandbits(7) % args[0]

    field = Field(Reduced(10), 101)
    count = accepts(lambda x, y: check_direct(ROWS, x, y, 1, field), ROWS, at_one_place(ROWS))
    assert count > interval(1 - (1 - Fraction(1, 101)) ** 2)[1]


# ---------------------------------------------------------------- masks


@pytest.mark.parametrize("modulus", [16, 37])
def test_masks_and_blinded_words_are_uniform(modulus: int) -> None:
    random = Random(modulus)
    masks = draw_mask((20_000,), random, modulus)
    counts = np.bincount(np.asarray(masks % modulus, dtype=np.int64), minlength=modulus)
    assert chisquare(counts).pvalue > 1e-6
    for constant in (-3, 0, 8):
        blinded = blind(np.full(20_000, constant), draw_mask((20_000,), random, modulus), modulus)
        counts = np.bincount(np.asarray(blinded % modulus, dtype=np.int64), minlength=modulus)
        assert len(counts) == modulus and chisquare(counts).pvalue > 1e-6


def test_pairs_of_blinded_words_are_uniform() -> None:
    x = np.tile([3, 5], 20_000)
    blinded = blind(x, draw_mask((40_000,), Random(12), 8), 8) % 8
    pairs = blinded[0::2] * 8 + blinded[1::2]
    assert chisquare(np.bincount(pairs.astype(np.int64), minlength=64)).pvalue > 1e-6


def test_the_measure_would_notice_a_short_mask() -> None:
    masks = draw_mask((20_000,), Random(13), 13)  # the prototype's flaw: the mask covers a part of the group
    blinded = blind(np.full(20_000, 5), masks, 16) % 16
    assert chisquare(np.bincount(blinded.astype(np.int64), minlength=16)).pvalue < 1e-6
