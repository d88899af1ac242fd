"""Secret probes s and their images t = W^T s mod p, for every linear step: where each kind of check gets them.

A wrong result y passes <y, s> = <x, t> with the probability that `soundness` states, as long as s is uniform and
nobody outside has seen it. Probes never leave the trusted side.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from slalom.arithmetic import field
from slalom.arithmetic.dispatch import Dispatch
from slalom.arithmetic.field import Elements
from slalom.arithmetic.transpose import transpose_maps, transpose_rank_one
from slalom.plan import Plan
from slalom.plan.steps import Linear, Shape
from slalom.trusted.model import TrustedModel
from slalom.trusted.policy import Check, Policy
from slalom.trusted.randomness import Randomness


@dataclass(frozen=True, repr=False)  # a representation would show the secret
class Probe:
    """One round for one linear step: `probe` uint64 [outputs of an item], `image` uint64 [inputs of an item]."""

    probe: Elements
    image: Elements

    def destroy(self) -> None:
        """Overwrites both."""
        self.probe.fill(0)
        self.image.fill(0)


Rounds = tuple[Probe, ...]


class ProbeSource(Protocol):
    """Gives the probes for one batch of one linear step."""

    per_item: bool

    def draw(self, step: Linear, batch: int) -> tuple[Rounds, ...]:
        """One set of rounds for the whole batch, or one for each item where `per_item`."""

    def destroy(self) -> None:
        """Overwrites every secret it keeps."""

    @property
    def held_bytes(self) -> Mapping[str, int]:
        """What it keeps between inferences, in bytes by kind."""


class PreprocessedProbes:
    """Probes drawn once a session: two vectors a step and round are kept, and no weights."""

    per_item = False

    def __init__(self, model: TrustedModel, plan: Plan, rounds: int, randomness: Randomness) -> None:
        self._rounds = {
            step.name: tuple(_dense_probe(step, model.shape(step.source), plan, randomness) for _ in range(rounds))
            for step in model.linear_steps.values()
        }

    def draw(self, step: Linear, batch: int) -> tuple[Rounds, ...]:
        """The session's probes for this step."""
        return (self._rounds[step.name],)

    def destroy(self) -> None:
        """Overwrites every probe and image."""
        for rounds in self._rounds.values():
            for probe in rounds:
                probe.destroy()

    @property
    def held_bytes(self) -> Mapping[str, int]:
        """Probes and probe images, in bytes."""
        pairs = [probe for rounds in self._rounds.values() for probe in rounds]
        return {
            "probes": sum(pair.probe.nbytes for pair in pairs),
            "probe_images": sum(pair.image.nbytes for pair in pairs),
        }


class FreshProbes:
    """Probes a (x) b drawn for every batch, or every item: no state, but the weights stay.

    The image of a rank-one probe costs one output channel's share of the layer: b is contracted with the weights
    first (Tramer and Boneh, section 3.2, use the same shape of probe).
    """

    def __init__(
        self, model: TrustedModel, plan: Plan, policy: Policy, randomness: Randomness, dispatch: Dispatch
    ) -> None:
        self._dispatch = dispatch
        self.per_item = policy.check is Check.DIRECT
        self._count = policy.rounds
        self._shapes = {step.name: model.shape(step.source) for step in model.linear_steps.values()}
        # LOAD-BEARING: copies; a device in this process could write to the plan that it was given
        self._weights = {name: tensor.copy() for name, tensor in plan.tensors.items() if tensor.dtype == np.int8}
        self._randomness = randomness

    def draw(self, step: Linear, batch: int) -> tuple[Rounds, ...]:
        """Fresh probes for this batch of this step."""
        sets = batch if self.per_item else 1
        return tuple(tuple(self._rank_one_probe(step) for _ in range(self._count)) for _ in range(sets))

    def destroy(self) -> None:
        """Nothing outlives a batch."""

    @property
    def held_bytes(self) -> Mapping[str, int]:
        """The weights, in bytes."""
        return {"weights": sum(tensor.nbytes for tensor in self._weights.values())}

    def _rank_one_probe(self, step: Linear) -> Probe:
        channels = step.output.shape[-1]
        spatial = self._randomness.draw_field(math.prod(step.output.shape[:-1]))
        channel = self._randomness.draw_field(channels)
        image = transpose_rank_one(step.maps, self._weights, self._shapes[step.name], spatial, channel, self._dispatch)
        return Probe(field.multiply(spatial[:, None], channel[None, :]).reshape(-1), image.reshape(-1))


def make_probe_source(
    model: TrustedModel, plan: Plan, policy: Policy, randomness: Randomness, dispatch: Dispatch
) -> ProbeSource:
    """The source that a policy's check names."""
    if policy.check is Check.PREPROCESSED:
        return PreprocessedProbes(model, plan, policy.rounds, randomness)
    return FreshProbes(model, plan, policy, randomness, dispatch)


def _dense_probe(step: Linear, input_shape: Shape, plan: Plan, randomness: Randomness) -> Probe:
    probe = randomness.draw_field(math.prod(step.output.shape))
    image = transpose_maps(step.maps, plan.tensors, input_shape, probe.reshape(step.output.shape))
    return Probe(probe, np.ascontiguousarray(image).reshape(-1))
