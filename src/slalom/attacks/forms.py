"""Answers of another form: a claim of another shape or type, too few claims, too many, or in another order.

These lie where claims cross. At level `device` none crosses, and they are honest.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slalom.arithmetic.linear import Words
from slalom.attacks.cheat import CheatingDevice, Claimed
from slalom.link.port import Claim


class FormCheat(CheatingDevice):
    """Computes honestly and answers in another form."""

    def run_ahead(self, activation: NDArray[np.int16]) -> Iterator[Claim]:
        """The honest claims, reformed."""
        return self.reform_stream(super().run_ahead(activation))

    def compute(self, step_names: Sequence[str], words: Words) -> Sequence[Claimed]:
        """The honest claims, reformed where the target is among them."""
        claims = list(super().compute(step_names, words))
        return self.reform_answer(list(step_names), claims)

    def reform_stream(self, claims: Iterator[Claim]) -> Iterator[Claim]:
        """What is sent in place of the honest stream."""
        raise NotImplementedError

    def reform_answer(self, step_names: list[str], claims: list[Claimed]) -> list[Claimed]:
        """What is sent in place of the honest claims of these steps."""
        raise NotImplementedError


class Deformed(FormCheat):
    """One claim in another shape or type."""

    def deform(self, honest: Claimed) -> NDArray[Any]:
        """The claim as it is sent."""
        raise NotImplementedError

    def reform_stream(self, claims: Iterator[Claim]) -> Iterator[Claim]:
        """The target's claim deformed."""
        for claim in claims:
            yield Claim(claim.step, self._deform(claim.words)) if claim.step == self.target else claim

    def reform_answer(self, step_names: list[str], claims: list[Claimed]) -> list[Claimed]:
        """The target's claim deformed."""
        pairs = zip(step_names, claims, strict=True)
        return [self._deform(claim) if name == self.target else claim for name, claim in pairs]

    def _deform(self, honest: Claimed) -> NDArray[Any]:
        self.lies += 1
        return self.deform(honest)


class WrongShape(Deformed):
    """One element short, in one row: what a careless reader would read past."""

    def deform(self, honest: Claimed) -> NDArray[Any]:
        """All elements but the last."""
        return honest.reshape(-1)[:-1].copy()


class WrongDtype(Deformed):
    """64-bit integers that are the true words mod 2^32, and other numbers."""

    def deform(self, honest: Claimed) -> NDArray[Any]:
        """Every element plus 2^32."""
        return honest.astype(np.int64) + 2**32


class ShortAnswer(FormCheat):
    """Leaves the target's claim out; running ahead, it stops there."""

    def reform_stream(self, claims: Iterator[Claim]) -> Iterator[Claim]:
        """Nothing from the target on."""
        for claim in claims:
            if claim.step == self.target:
                self.lies += 1
                return
            yield claim

    def reform_answer(self, step_names: list[str], claims: list[Claimed]) -> list[Claimed]:
        """One claim fewer."""
        self.lies += step_names.count(self.target)
        return [claim for name, claim in zip(step_names, claims, strict=True) if name != self.target]


class ExtraAnswer(FormCheat):
    """Sends the target's claim twice, the second time with a bit flipped."""

    def reform_stream(self, claims: Iterator[Claim]) -> Iterator[Claim]:
        """One claim more, right after the first."""
        for claim in claims:
            yield claim
            if claim.step == self.target:
                self.lies += 1
                yield Claim(claim.step, self.flip_bit(claim.words))

    def reform_answer(self, step_names: list[str], claims: list[Claimed]) -> list[Claimed]:
        """One claim more, at the end."""
        if self.target not in step_names:
            return claims
        self.lies += 1
        return [*claims, self.flip_bit(claims[step_names.index(self.target)])]


class OutOfOrder(FormCheat):
    """Gives the target's words under its neighbour's name, and the neighbour's under the target's.

    The neighbour comes next; the last step's is the one before it, so there the first false claim is the neighbour's.
    Asked for the target alone, it answers with the claim of the exchange before; before any, it flips a bit.
    """

    _latest: Claimed | None = None

    def reform_stream(self, claims: Iterator[Claim]) -> Iterator[Claim]:
        """Two consecutive claims with their words exchanged."""
        first = self._first_of_pair()
        held: Claim | None = None
        for claim in claims:
            if held is not None:
                yield Claim(held.step, self.tell(held.words, claim.words))
                yield Claim(claim.step, self.tell(claim.words, held.words))
                held = None
            elif claim.step == first:
                held = claim
            else:
                yield claim
        if held is not None:
            yield Claim(held.step, self.tell(held.words, held.words))

    def reform_answer(self, step_names: list[str], claims: list[Claimed]) -> list[Claimed]:
        """Two claims of one exchange, or of two, exchanged."""
        latest, self._latest = self._latest, claims[-1] if claims else self._latest
        if self.target not in step_names:
            return claims
        place = step_names.index(self.target)
        if len(claims) > 1:
            other = place + 1 if place + 1 < len(claims) else place - 1
            pair = claims[place], claims[other]
            claims[place], claims[other] = self.tell(*pair), self.tell(*reversed(pair))
        else:
            claims[0] = self.tell(claims[0], claims[0] if latest is None else latest)
        return claims

    def _first_of_pair(self) -> str:
        """The target, or the step before it where it is the last of several."""
        names = list(self.loaded.linear_steps)
        return names[-2] if len(names) > 1 and self.target == names[-1] else self.target
