"""The probabilities as fractions, and what they come to for the real field."""

from __future__ import annotations

from fractions import Fraction

import pytest

from reference.check import Method
from reference.field import P
from reference.soundness import check_error, round_error, soundness_bits, total_error
from slalom.errors import ApiMisuse
from tests.graphs import dense_graph, residual_graph


def test_round_errors() -> None:
    image, vector = (4, 5, 8), (8,)
    assert (
        round_error(Method.PREPROCESSED, image, 101)
        == round_error(Method.PREPROCESSED, vector, 101)
        == Fraction(1, 101)
    )
    assert round_error(Method.DIRECT, image, 101) == Fraction(2, 101)
    assert round_error(Method.DIRECT, vector, 101) == round_error(Method.DIRECT, (1, 1, 8), 101) == Fraction(1, 101)
    assert round_error(Method.BATCHED, image, 101) == Fraction(3, 101)
    assert round_error(Method.BATCHED, vector, 101) == Fraction(2, 101)


def test_rounds_multiply_and_stay_probabilities() -> None:
    assert check_error(Method.DIRECT, (2, 2), 3, 101) == Fraction(8, 101**3)
    assert check_error(Method.BATCHED, (2, 2), 5, 2) == 1
    with pytest.raises(ApiMisuse):
        check_error(Method.DIRECT, (2, 2), 0)


def test_union_over_steps_and_inferences() -> None:
    residual, dense = residual_graph()[0], dense_graph()[0]  # three images and one vector; two vectors
    assert total_error(residual, Method.PREPROCESSED, 1, 10, 10007) == Fraction(40, 10007)
    assert total_error(residual, Method.DIRECT, 1, 10, 10007) == Fraction(10 * (3 * 2 + 1), 10007)
    assert total_error(residual, Method.BATCHED, 2, 1, 10007) == Fraction(3 * 9 + 4, 10007**2)
    assert total_error(dense, Method.DIRECT, 1, 1) == Fraction(2, P)
    assert total_error(residual, Method.DIRECT, 1, 10**6, 101) == 1


def test_bits_of_the_real_field() -> None:
    assert soundness_bits(check_error(Method.PREPROCESSED, (8,), 1)) == 50
    assert soundness_bits(check_error(Method.PREPROCESSED, (8,), 2)) == 101
    assert soundness_bits(check_error(Method.DIRECT, (2, 8), 1)) == 49
    assert soundness_bits(Fraction(1)) == 0
    assert soundness_bits(Fraction(1, 1024)) == 10
    assert soundness_bits(Fraction(1, 1023)) == 9
