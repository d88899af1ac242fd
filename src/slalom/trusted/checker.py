"""The one door from Claimed to Verified: the check returns the verified value or raises.

What a pass computed from a claim is `Examined`: it exists, but nobody has vouched for it. Only `check_claim` makes it
`Verified`, and only a `Verified` value goes on. There is no way to ask whether a claim is right and ignore the answer.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from slalom.arithmetic import field
from slalom.arithmetic.field import Elements
from slalom.arithmetic.fused import Values
from slalom.errors import IntegrityError
from slalom.plan.steps import Linear
from slalom.trusted.policy import Check
from slalom.trusted.probes import ProbeSource, Rounds
from slalom.trusted.randomness import Randomness


@dataclass(frozen=True, repr=False)  # a representation would show secrets
class Examined:
    """What a pass made of a claim of `step`: values [B, M] and the dots <y, s> [B, rounds], not yet compared.

    Values that nobody reads again here are None: they exist as dots, and as blinded words.
    """

    step: str
    values: Values | None
    claim_dots: Elements


@dataclass(frozen=True, repr=False)
class Verified:
    """Values [B, M] that follow from checked claims, or were computed inside from such values; None if not kept."""

    values: Values | None


class CheckBook:
    """The open checks of one micro-batch: probes drawn when an activation leaves, dots compared when the claim is back.

    `groups` are the slices of the batch that share probes: the whole batch, or one slice an item.
    """

    def __init__(self, source: ProbeSource, check: Check, batch: int, randomness: Randomness) -> None:
        self._source = source
        self._combined = check is Check.BATCHED
        self._batch = batch
        self._randomness = randomness
        self._probes: dict[str, tuple[Rounds, ...]] = {}
        self._expected: dict[str, Elements] = {}
        self.groups = [slice(item, item + 1) for item in range(batch)] if source.per_item else [slice(0, batch)]

    def open_check(self, step: Linear) -> None:
        """Draws the probes for a linear step whose source is about to be computed."""
        self._probes[step.name] = self._source.draw(step, self._batch)

    def probe_images(self, step: Linear, group: int) -> tuple[Elements, ...]:
        """For each round, t: to be dotted with the step's source."""
        return tuple(probe.image for probe in self._probes[step.name][group])

    def probes(self, step: Linear, group: int) -> tuple[Elements, ...]:
        """For each round, s: to be dotted with the claim."""
        return tuple(probe.probe for probe in self._probes[step.name][group])

    def expect(self, step: Linear, dots: Elements) -> None:
        """Records <x, t>, uint64 [B, rounds], from the verified source of a linear step."""
        self._expected[step.name] = dots

    def check_claim(self, examined: Examined) -> Verified:
        """The verified values, or IntegrityError naming the step: <y, s> = <x, t> mod p in every round.

        With the batched check the batch is combined with fresh random coefficients: by linearity the combination of
        the dots is the dot of the combination. Every check is used once.
        """
        expected = self._expected.pop(examined.step, None)
        found = examined.claim_dots
        if expected is None or expected.shape != found.shape or expected.shape[1] < 1:
            raise IntegrityError(f"step {examined.step!r}: no check was prepared for this claim", step=examined.step)
        if self._combined:
            found, expected = self._combine(found, expected)
        if not np.array_equal(found, expected):
            raise IntegrityError(
                f"the device's result for step {examined.step!r} failed its check",
                step=examined.step,
                hint="the device is faulty or hostile: nothing it computed in this session should be used",
            )
        self._probes.pop(examined.step, None)
        return Verified(examined.values)

    def destroy(self) -> None:
        """Overwrites the probes of checks that were never made: their session is over."""
        for sets in self._probes.values():
            for probe in (probe for rounds in sets for probe in rounds):
                probe.destroy()
        self._probes.clear()
        self._expected.clear()

    def _combine(self, found: Elements, expected: Elements) -> tuple[Elements, Elements]:
        batch, rounds = found.shape
        coefficients = self._randomness.draw_field(batch * rounds).reshape(rounds, batch)
        return (
            field.sum(field.multiply(coefficients, np.ascontiguousarray(found.T))),
            field.sum(field.multiply(coefficients, np.ascontiguousarray(expected.T))),
        )


def hazardous_accept_unchecked(examined: Examined) -> Verified:
    """Lets a claim pass that nobody checked: the `blinded` level, whose users chose it. Integrity is not protected."""
    return Verified(examined.values)
