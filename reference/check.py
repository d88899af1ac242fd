"""The three ways to check a linear result. Each returns the verified integers or raises; none gives a bool.

A claim y for an input x is accepted iff <y, s> = <x, Wᵀ·s> in F_p for a secret uniform probe s, in every round.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from math import prod

import numpy as np

from reference.field import Field
from reference.linear import Integers, Tensors, transpose_step
from slalom.errors import ApiMisuse, IntegrityError
from slalom.plan.steps import ACCUMULATOR_LIMIT, Linear, Shape

PIECE_BITS = 26


class Method(StrEnum):
    """Where the probes of a check come from."""

    PREPROCESSED = "preprocessed"
    DIRECT = "direct"
    BATCHED = "batched"


@dataclass(frozen=True)
class Layer:
    """One linear step with its weights and the shape of its input: the W of the formulas."""

    step: Linear
    tensors: Tensors
    input_shape: Shape


@dataclass(frozen=True)
class Probe:
    """A secret s, [*output], and its probe image t = Wᵀ·s, [*input], both in F_p."""

    s: Integers
    image: Integers


# ---------------------------------------------------------------- probes


def draw_probes(layer: Layer, rounds: int, field: Field) -> tuple[Probe, ...]:
    """One dense probe per round, every element of it uniform: what `check_preprocessed` keeps for a session."""
    require_rounds(rounds)
    return tuple(with_image(layer, field.draw(layer.step.output.shape), field) for _ in range(rounds))


def draw_rank_one_probe(layer: Layer, field: Field) -> Probe:
    """The probe s[position, channel] = a[position] * b[channel] with a and b uniform; a is 1 if there is one position.

    `direct` may then multiply W by b first and by a last, which costs much less than W itself.
    """
    shape = layer.step.output.shape
    a = field.draw((prod(shape[:-1]),)) if prod(shape[:-1]) > 1 else np.ones(1, dtype=object)
    b = field.draw((shape[-1],))
    return with_image(layer, field.reduce(np.multiply.outer(a, b)).reshape(shape), field)


def with_image(layer: Layer, s: Integers, field: Field) -> Probe:
    """A probe together with its probe image.

    Wᵀ·s is put together from pieces of s of 26 bits, because Wᵀ of such a piece usually fits 64-bit integers.
    """
    image = np.zeros(layer.input_shape, dtype=object)
    for shift in range(0, field.modulus.bit_length(), PIECE_BITS):
        piece = (s >> shift) % 2**PIECE_BITS
        part = transpose_step(layer.step, layer.tensors, piece[np.newaxis], layer.input_shape)[0]
        image += part.astype(object) << shift
    return Probe(s, field.reduce(image))


# ---------------------------------------------------------------- checks


def check_preprocessed(layer: Layer, x: Integers, claim: Integers, probes: Sequence[Probe], field: Field) -> Integers:
    """The claim [batch, *output], verified: every item against every probe. Raises IntegrityError naming the step."""
    require_rounds(len(probes))
    require_accumulators(layer, x, claim)
    for item, claimed in zip(x, claim, strict=True):
        for probe in probes:
            check_item(layer, item, claimed, probe, field)
    return claim


def check_direct(layer: Layer, x: Integers, claim: Integers, rounds: int, field: Field) -> Integers:
    """The claim [batch, *output], verified: every item against its own fresh rank-one probe, each round."""
    require_rounds(rounds)
    require_accumulators(layer, x, claim)
    for item, claimed in zip(x, claim, strict=True):
        for _ in range(rounds):
            check_item(layer, item, claimed, draw_rank_one_probe(layer, field), field)
    return claim


def check_batched(layer: Layer, x: Integers, claim: Integers, rounds: int, field: Field) -> Integers:
    """The claim [batch, *output], verified: the batch is joined with random coefficients first, then as `direct`.

    One check serves the whole batch in each round: sum of beta_i y_i against W · sum of beta_i x_i.
    """
    require_rounds(rounds)
    require_accumulators(layer, x, claim)
    for _ in range(rounds):
        beta = field.draw((len(x),))
        joined_x = field.reduce(sum(b * item.astype(object) for b, item in zip(beta, x, strict=True)))
        joined_y = field.reduce(sum(b * item.astype(object) for b, item in zip(beta, claim, strict=True)))
        check_item(layer, joined_x, joined_y, draw_rank_one_probe(layer, field), field)
    return claim


def check_item(layer: Layer, x: Integers, claim: Integers, probe: Probe, field: Field) -> None:
    """One round for one item: returns if <y, s> = <x, t>, else raises IntegrityError."""
    if field.dot(claim, probe.s) != field.dot(x, probe.image):
        raise IntegrityError(f"step {layer.step.name} failed its check", step=layer.step.name)


# ---------------------------------------------------------------- refusals


def require_rounds(rounds: int) -> None:
    """Raises ApiMisuse for no round: a check that checks nothing cannot be expressed."""
    if rounds < 1:
        raise ApiMisuse(f"a check has at least 1 round, not {rounds}")


def require_accumulators(layer: Layer, x: Integers, claim: Integers) -> None:
    """Raises IntegrityError unless the claim is one 32-bit integer for each output element of each item.

    A wrong 32-bit integer differs from a right one by less than 2**32 < p, so it is wrong in F_p too.
    """
    expected = (len(x), *layer.step.output.shape)
    if claim.shape != expected:
        raise IntegrityError(f"step {layer.step.name} has shape {claim.shape}, not {expected}", step=layer.step.name)
    if claim.size and (claim.max() > ACCUMULATOR_LIMIT or claim.min() < -ACCUMULATOR_LIMIT - 1):
        raise IntegrityError(f"step {layer.step.name} is not made of 32-bit integers", step=layer.step.name)
