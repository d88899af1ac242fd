"""Answers of a device that is called and returns: one thing at a time, in the thread that serves."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slalom.arithmetic.fused import pack_claims
from slalom.errors import WireError
from slalom.link.message import NO_SLOT, Element, Errand, Header, Kind
from slalom.link.port import Claim
from slalom.link.region import PieceNumbers, Region, passage_of
from slalom.link.serve import Asked, Mouth, Served

_NOWHERE = Errand(NO_SLOT, NO_SLOT, Element.OTHER)
_NOTHING = np.empty(0, np.int32)
_ANSWERED: Mapping[np.dtype[Any], Element] = MappingProxyType(
    {np.dtype(np.int16): Element.INT16, np.dtype(np.int32): Element.INT32, np.dtype(np.float32): Element.FLOAT32}
)


class CallAnswering:
    """See `serve.Answering`. Answers that the device gives too few or too many of go out as they are."""

    def __init__(self, served: Served, mouth: Mouth) -> None:
        self._device = served.device
        self._layout = served.layout
        self._mouth = mouth
        self._region: Region | None = None
        self._pieces = PieceNumbers()
        self._ahead: tuple[Header, Iterator[Claim], int] | None = None  # the ask, the claims to come, how many are due

    def map(self, region: Region, batch: int) -> None:
        """Takes the memory."""
        self._region, self._pieces = region, PieceNumbers()

    def compute(self, asked: Asked) -> None:
        """Calls the device and sends what it returns."""
        names = [self._layout.steps[errand.step].name for errand in asked.errands]
        self._answer(asked, Kind.CLAIM, self._device.compute(names, asked.words))

    def compute_in_pieces(self, header: Header, errands: tuple[Errand, ...], count: int, span: int) -> None:
        """Refused: whoever sends them may wait for a claim that this thread sends once it has them."""
        raise WireError("this device takes no words in pieces")

    def run(self, asked: Asked) -> None:
        """Calls the device and sends what it returns."""
        self._answer(asked, Kind.OUTPUT, self._device.run(asked.words))

    def run_ahead(self, asked: Asked) -> None:
        """Computes a claim for each grant, and no more."""
        self._ahead = asked.header, iter(self._device.run_ahead(asked.words)), len(self._layout.steps)
        for errand in asked.errands:
            self.grant(asked.header, errand)

    def grant(self, header: Header, errand: Errand) -> None:
        """Computes the next claim; a device that has none left, or more than there are steps, shows it."""
        if self._ahead is None or header.request != self._ahead[0].request or self._ahead[2] < 1:
            raise WireError("a grant for nothing that was begun")
        asked, claims, due = self._ahead
        self._ahead = asked, claims, due - 1
        claim = next(claims, None)
        if claim is None:
            self._give(asked, Kind.CLAIM, _NOWHERE, _NOTHING)
            return
        step = self._layout.positions.get(claim.step, NO_SLOT)
        self._give(asked, Kind.CLAIM, replace(errand, step=step), claim.words)
        if due == 1:
            for extra in itertools.islice(claims, 1):
                self._give(asked, Kind.CLAIM, _NOWHERE, extra.words)

    def say(self, header: Header) -> None:
        """Sends a header."""
        self._mouth.say(header)

    def stop(self) -> None:
        """Nothing is under way between calls."""

    def _answer(self, asked: Asked, kind: Kind, answers: Iterable[Any]) -> None:
        given: Sequence[Any] = list(answers)
        for errand, words in itertools.zip_longest(asked.errands, given[: len(asked.errands) + 1]):
            self._give(asked.header, kind, errand or _NOWHERE, _NOTHING if words is None else words)

    def _give(self, asked: Header, kind: Kind, errand: Errand, words: NDArray[Any]) -> None:
        if self._region is None:
            raise WireError("an answer has no memory")
        given = np.ascontiguousarray(words)
        element = _ANSWERED.get(given.dtype, Element.OTHER)
        if errand.element is Element.INT24 and element is Element.INT32 and given.size and given.ndim > 1:
            given, element = pack_claims(given), Element.INT24
        header = Header(kind, 0, asked.request, errand.step, errand.slot, len(given), element, given.nbytes)
        if errand.span:
            self._pour(asked, errand, given)
        if errand.slot != NO_SLOT and given.nbytes <= self._region.geometry.claim_size:
            np.copyto(self._region.claim(errand.slot, given.shape, given.dtype), given)
        self._mouth.answer(header, given)

    def _pour(self, asked: Header, errand: Errand, given: NDArray[Any]) -> None:
        """Puts a claim through the ring; one of another size or type than was asked has nothing to do there."""
        if self._region is None or errand.step == NO_SLOT:
            return
        count = math.prod(self._layout.steps[errand.step].output.shape)
        ring = self._region.claim_ring()
        if ring is None:
            raise WireError("a claim in pieces has no ring")
        passage = passage_of(ring, self._pieces, errand, asked.batch, count)
        if given.nbytes == passage.nbytes and given.dtype == (np.uint8 if passage.packed else np.int32):
            self._mouth.pour(passage, given)
