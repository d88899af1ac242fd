"""How improbable it is that a lie passes: one function for each source of error, exact fractions.

A linear result is wrong when at least one entry differs. Claimed and true entries are 32-bit integers, so the
difference is a non-zero integer below 2^33 < p in magnitude, and stays non-zero in F_p.
"""

from __future__ import annotations

import math
from fractions import Fraction

from slalom.arithmetic.field import P
from slalom.trusted.policy import Check, Policy


def dense_probe_error(modulus: int = P) -> Fraction:
    """<error, s> = 0 for a uniform s: one value of p for any entry that multiplies a non-zero error."""
    return Fraction(1, modulus)


def rank_one_probe_error(modulus: int = P) -> Fraction:
    """The probe a (x) b makes <error, a (x) b> of degree 2 in uniform variables: zero at most 2/p (Schwartz-Zippel)."""
    return Fraction(2, modulus)


def combination_error(modulus: int = P) -> Fraction:
    """sum of beta_i * d_i = 0 although some d_i is not: 1/p for uniform coefficients."""
    return Fraction(1, modulus)


def round_error(check: Check, modulus: int = P) -> Fraction:
    """An upper bound of the probability that one round accepts a wrong result."""
    if check is Check.PREPROCESSED:
        return dense_probe_error(modulus)
    if check is Check.DIRECT:
        return rank_one_probe_error(modulus)
    return rank_one_probe_error(modulus) + combination_error(modulus)


def check_error(policy: Policy, modulus: int = P) -> Fraction:
    """The same after all rounds: their probes are independent, and every one must accept."""
    return round_error(policy.check, modulus) ** policy.rounds


def union_error(policy: Policy, linear_steps: int, inferences: int, modulus: int = P) -> Fraction:
    """That any wrong result among all linear steps of all inferences passes: the union bound.

    The first failed check ends the session and destroys the probes, so a cheater has one attempt in it; the bound
    counts every result as if it were that attempt.
    """
    return min(Fraction(1), check_error(policy, modulus) * linear_steps * max(1, inferences))


def bits(error: Fraction) -> float:
    """-log2 of a probability, from the logarithms of its exact numerator and denominator: it never underflows."""
    if error <= 0:
        return math.inf
    return math.log2(error.denominator) - math.log2(error.numerator)


def soundness_bits(policy: Policy, linear_steps: int, inferences: int) -> float:
    """The bits shown to a user: of the union bound; 0 at levels that check nothing."""
    if not policy.protection.checked:
        return 0.0
    return bits(union_error(policy, linear_steps, inferences))
