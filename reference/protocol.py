"""The five protection levels, each over a `Device`: a callable that may cheat.

Trust: everything here runs inside, but for what `device` returns.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from reference import network
from reference.blinding import blind, draw_mask, mask_image, signed, unblind
from reference.check import Layer, Method, check_batched, check_direct, check_preprocessed, draw_probes, require_rounds
from reference.field import Field
from reference.linear import Integers, Tensors, apply_step
from slalom.errors import WireError
from slalom.plan.steps import Graph, Linear

Device = Callable[[Linear, Integers], Integers]
"""Words in, [batch, *input], words out, [batch, *output]: W·x mod 2^32, if it is honest."""

Check = Callable[[Linear, Integers, Integers], Integers]
"""The verified integers of a step from its input and its claim; raises IntegrityError."""


@dataclass(frozen=True)
class Plan:
    """A graph and its tensors."""

    graph: Graph
    tensors: Tensors


@dataclass(frozen=True)
class Checks:
    """How claims are checked, with how many rounds, in which field."""

    method: Method
    rounds: int
    field: Field

    def __post_init__(self) -> None:
        require_rounds(self.rounds)


# ---------------------------------------------------------------- the levels


def run_device(plan: Plan, images: network.Array, device: Device) -> list[network.Array]:
    """Level `device`: the unprotected baseline. Whatever the device says is taken."""
    return network.run(plan.graph, plan.tensors, images, lambda step, x: ask(device, step, x))


def run_enclave(plan: Plan, images: network.Array) -> list[network.Array]:
    """Level `enclave`: everything inside, the device sees nothing."""
    return network.run(plan.graph, plan.tensors, images)


def run_verified(plan: Plan, images: network.Array, device: Device, checks: Checks) -> list[network.Array]:
    """Level `verified`: the device sees everything and runs ahead; its claims are checked one step after the other.

    Every activation is computed again from verified accumulators: none of the device's own is used.
    """
    check = prepare_check(plan, checks)
    claims: dict[str, Integers] = {}

    def claim_ahead(step: Linear, x: Integers) -> Integers:
        claims[step.name] = ask(device, step, x)
        return claims[step.name]

    network.run(plan.graph, plan.tensors, images, claim_ahead)
    return network.run(plan.graph, plan.tensors, images, lambda step, x: check(step, x, claims[step.name]))


def run_blinded(plan: Plan, images: network.Array, device: Device, field: Field) -> list[network.Array]:
    """Level `blinded`: the device sees uniform words; nothing is checked."""
    return network.run(plan.graph, plan.tensors, images, lambda step, x: exchange(plan, step, x, device, field))


def run_private(plan: Plan, images: network.Array, device: Device, checks: Checks) -> list[network.Array]:
    """Level `private`: the device sees uniform words, and what it answers is checked once it is unblinded."""
    check = prepare_check(plan, checks)

    def compute(step: Linear, x: Integers) -> Integers:
        return check(step, x, exchange(plan, step, x, device, checks.field))

    return network.run(plan.graph, plan.tensors, images, compute)


# ---------------------------------------------------------------- their parts


def honest_device(tensors: Tensors) -> Device:
    """A device that does its work."""
    return lambda step, x: signed(apply_step(step, tensors, x))


def ask(device: Device, step: Linear, x: Integers) -> Integers:
    """The device's answer as words. Raises WireError for another shape than was asked for."""
    answer = np.asarray(device(step, signed(x)))
    expected = (len(x), *step.output.shape)
    if answer.shape != expected:
        raise WireError(f"step {step.name} was answered with shape {answer.shape}, not {expected}")
    return signed(answer)


def exchange(plan: Plan, step: Linear, x: Integers, device: Device, field: Field) -> Integers:
    """One step through a device that learns nothing: a fresh mask for every item, used once."""
    mask = draw_mask(x.shape, field.random)
    image = mask_image(layer_of(plan, step), mask)
    return unblind(ask(device, step, blind(x, mask)), image)


def prepare_check(plan: Plan, checks: Checks) -> Check:
    """The check of every step. `preprocessed` draws its probes here, once for the session."""
    layers = {step.name: layer_of(plan, step) for step in plan.graph.steps if isinstance(step, Linear)}
    field, rounds = checks.field, checks.rounds
    if checks.method is Method.PREPROCESSED:
        probes = {name: draw_probes(layer, rounds, field) for name, layer in layers.items()}
        return lambda step, x, claim: check_preprocessed(layers[step.name], x, claim, probes[step.name], field)
    check = check_direct if checks.method is Method.DIRECT else check_batched
    return lambda step, x, claim: check(layers[step.name], x, claim, rounds, field)


def layer_of(plan: Plan, step: Linear) -> Layer:
    """A step with its weights and its input's shape."""
    return Layer(step, plan.tensors, network.value_types(plan.graph)[step.source].shape)
