"""How likely a wrong result is to be accepted: exact fractions, one function per source of error.

A cheating device fixes a wrong claim without knowing the probes; the probabilities are over the probes and bound
every wrong claim.
"""

from __future__ import annotations

from fractions import Fraction
from math import prod

from reference.check import Method, require_rounds
from reference.field import P
from slalom.plan.steps import Graph, Linear, Shape


def dense_error(modulus: int = P) -> Fraction:
    """1/p: a nonzero linear form in the probe vanishes for exactly one p-th of the probes."""
    return Fraction(1, modulus)


def rank_one_error(output_shape: Shape, modulus: int = P) -> Fraction:
    """2/p: the form has degree 2 in (a, b) (Schwartz-Zippel); 1/p where there is one position, so that a is 1."""
    return Fraction(1 if prod(output_shape[:-1]) == 1 else 2, modulus)


def joining_error(modulus: int = P) -> Fraction:
    """1/p: the wrong parts of a batch cancel under random coefficients."""
    return Fraction(1, modulus)


def round_error(method: Method, output_shape: Shape, modulus: int = P) -> Fraction:
    """What one round of a check lets pass, at most."""
    if method is Method.PREPROCESSED:
        return dense_error(modulus)
    rank_one = rank_one_error(output_shape, modulus)
    return rank_one if method is Method.DIRECT else joining_error(modulus) + rank_one


def check_error(method: Method, output_shape: Shape, rounds: int, modulus: int = P) -> Fraction:
    """What all rounds let pass: they are independent, so the errors multiply. Raises ApiMisuse for zero rounds."""
    require_rounds(rounds)
    error: Fraction = round_error(method, output_shape, modulus) ** rounds
    return min(Fraction(1), error)


def total_error(graph: Graph, method: Method, rounds: int, inferences: int, modulus: int = P) -> Fraction:
    """That any wrong result passes anywhere: the union over all linear steps and all inferences, at most 1.

    An inference is one item; a batch under `batched` has one check a step, so counting its items is an upper bound.
    """
    steps = [step for step in graph.steps if isinstance(step, Linear)]
    errors = [check_error(method, step.output.shape, rounds, modulus) for step in steps]
    return min(Fraction(1), inferences * sum(errors, Fraction(0)))


def soundness_bits(error: Fraction) -> int:
    """The largest whole b with error <= 2**-b; an error of 0 has no such b and cannot occur."""
    bits = 0
    while error * 2 ** (bits + 1) <= 1:
        bits += 1
    return bits
