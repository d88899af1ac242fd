"""The probabilities that are shown to users: exact, equal to the reference's, and never of a vacuous check."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import pytest

import reference.soundness
from reference.check import Method
from slalom.arithmetic.field import P
from slalom.errors import ApiMisuse
from slalom.trusted import soundness
from slalom.trusted.policy import Check, Policy, Protection, parse_policy
from tests.devices import GRAPH_NAMES, linear_steps_of, plan_of

METHODS = {Check.DIRECT: Method.DIRECT, Check.BATCHED: Method.BATCHED, Check.PREPROCESSED: Method.PREPROCESSED}
IMAGE = (3, 4, 5)


@pytest.mark.parametrize("modulus", [P, 101, 2])
@pytest.mark.parametrize("rounds", [1, 2, 3, 64])
@pytest.mark.parametrize("check", list(Check))
def test_equal_to_the_reference(check: Check, rounds: int, modulus: int) -> None:
    error = min(Fraction(1), soundness.check_error(Policy(Protection.PRIVATE, check, rounds), modulus))
    assert isinstance(error, Fraction)
    assert error == reference.soundness.check_error(METHODS[check], IMAGE, rounds, modulus)


def test_the_formulas() -> None:
    assert soundness.dense_probe_error() == Fraction(1, P)
    assert soundness.rank_one_probe_error() == Fraction(2, P)
    assert soundness.combination_error() == Fraction(1, P)
    assert soundness.round_error(Check.PREPROCESSED) == Fraction(1, P)
    assert soundness.round_error(Check.DIRECT) == Fraction(2, P)
    assert soundness.round_error(Check.BATCHED) == Fraction(3, P)


@pytest.mark.parametrize("check", list(Check))
@pytest.mark.parametrize("name", GRAPH_NAMES)
def test_the_union_bound_is_never_below_the_reference(name: str, check: Check) -> None:
    """Equal where every step has several positions; the reference alone counts steps of one position closer."""
    for rounds in (1, 2, 3):
        for inferences in (1, 7, 10**6):
            policy = Policy(Protection.PRIVATE, check, rounds)
            mine = soundness.union_error(policy, len(linear_steps_of(name)), inferences)
            theirs = reference.soundness.total_error(plan_of(name).graph, METHODS[check], rounds, inferences)
            assert theirs <= mine <= 2**rounds * theirs
            if check is Check.PREPROCESSED:
                assert mine == theirs


def test_the_union_bound() -> None:
    policy = Policy(Protection.PRIVATE, Check.PREPROCESSED, 2)
    assert soundness.union_error(policy, 53, 1000) == Fraction(53_000, P**2)
    assert soundness.union_error(policy, 53, 0) == Fraction(53, P**2)
    assert soundness.union_error(Policy(rounds=1), 10**9, 10**9) == 1
    assert soundness.union_error(policy, 0, 5) == 0


def test_bits() -> None:
    assert soundness.bits(Fraction(1)) == 0.0
    assert soundness.bits(Fraction(1, 2)) == 1.0
    assert soundness.bits(Fraction(1, 2**4000)) == 4000.0  # far below the smallest float
    assert soundness.bits(Fraction(3, 2**4001)) == pytest.approx(4001 - math.log2(3), abs=1e-9)
    assert soundness.bits(Fraction(0)) == math.inf
    # p > 2^50.99 -> one round, one step, one image: 50.99.. bits; two rounds twice as many
    one = soundness.soundness_bits(Policy(Protection.VERIFIED, Check.PREPROCESSED, 1), 1, 1)
    assert 50.99 < one < 51
    assert soundness.soundness_bits(Policy(Protection.VERIFIED, Check.PREPROCESSED, 2), 1, 1) == pytest.approx(2 * one)
    assert soundness.bits(Fraction(1, P)) >= reference.soundness.soundness_bits(Fraction(1, P))


@pytest.mark.parametrize("protection", [Protection.DEVICE, Protection.ENCLAVE, Protection.BLINDED])
def test_levels_without_checks_claim_nothing(protection: Protection) -> None:
    assert soundness.soundness_bits(Policy(protection), 10, 10) == 0.0


@pytest.mark.parametrize("rounds", [0, -1, -(2**63), 65, True, False, 1.0, 2.5, "1", None])
def test_rounds_that_check_nothing_or_mean_nothing(rounds: Any) -> None:
    with pytest.raises(ApiMisuse, match=r"rounds must be 1\.\.64"):
        Policy(rounds=rounds)
    with pytest.raises(ApiMisuse, match=r"rounds must be 1\.\.64"):
        parse_policy("private", "direct", rounds, "ahead")
    with pytest.raises(ApiMisuse):
        reference.soundness.check_error(Method.DIRECT, IMAGE, 0)


def test_a_policy_names_what_it_does() -> None:
    for protection in Protection:
        policy = Policy(protection)
        assert protection.checked == (protection in (Protection.VERIFIED, Protection.PRIVATE))
        assert protection.masked == (protection in (Protection.BLINDED, Protection.PRIVATE))
        assert policy.exchanges == protection.masked
    assert parse_policy("verified", "batched", 2, "layerwise").exchanges
