"""Whole networks that a device runs ahead, as the trusted side follows them: it grants a few claims at a time."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from slalom.arithmetic.pieces import StreamedClaim
from slalom.link.asks import Asks
from slalom.link.conversation import Arrivals, Message
from slalom.link.memory import Memory
from slalom.link.message import Header, Kind, encode_errands
from slalom.link.port import Claim

_GRANTS = 8  # claims that a device running ahead may owe
_UNSETTLED = 2  # claims in pieces that were handed on, and whose last word is still to come


@dataclass(frozen=True, eq=False)
class Coming:
    """A claim of a linear step that the link asked for, in pieces that are still to come."""

    step: str
    words: StreamedClaim


class _Grant(NamedTuple):
    """Leave to make one claim of a micro-batch."""

    request: int
    ask_slot: int
    activation: NDArray[np.int16]
    step: int


class _Owed(NamedTuple):
    """A claim that was granted: in its slot once it arrives, or in pieces, after which its last word arrives."""

    grant: _Grant
    arrivals: Arrivals[NDArray[Any]]
    claim: StreamedClaim | None


class Following:
    """Micro-batches one after another, through one memory. `timeout_seconds` bounds the wait for each claim."""

    def __init__(self, asks: Asks, memory: Memory, timeout_seconds: float) -> None:
        self._asks = asks
        self._memory = memory
        self._timeout_seconds = timeout_seconds
        self._last = len(asks.layout.steps) - 1

    def claims(self, activations: Sequence[NDArray[np.int16]]) -> Iterator[Claim | Coming | None]:
        """The claims of each, in plan order, and None after it; the next begins while its last are on their way."""
        grants = (grant for activation in activations for grant in self._grants(activation))
        owed: deque[_Owed] = deque()
        unsettled: deque[_Owed] = deque()
        while True:
            while len(owed) < _GRANTS and (grant := next(grants, None)) is not None:
                owed.append(self._issue(grant))
            if not owed:
                break
            due = owed.popleft()
            step = self._asks.layout.steps[due.grant.step].name
            if due.claim is None:
                yield Claim(step, due.arrivals.take(self._timeout_seconds))
            else:
                yield Coming(step, due.claim)
            unsettled.append(due)
            if due.grant.step == self._last:
                yield None
            while len(unsettled) > _UNSETTLED:
                self._settle(unsettled.popleft())
        for due in unsettled:
            self._settle(due)

    def _settle(self, due: _Owed) -> None:
        """Waits for the last word of a claim in pieces; after the last claim nobody reads the activation any more."""
        if due.claim is not None:
            due.arrivals.take(self._timeout_seconds)
        if due.grant.step == self._last:
            self._memory.asks.release(due.grant.ask_slot)

    def _grants(self, activation: NDArray[np.int16]) -> Iterator[_Grant]:
        """What a micro-batch needs, in order; its activation is placed when the first is taken."""
        request, slot = self._asks.next_request(), self._memory.place(activation)
        for step in range(self._last + 1):
            yield _Grant(request, slot, activation, step)

    def _issue(self, grant: _Grant) -> _Owed:
        """Leases a slot, or pieces, and lets the device make a claim; the first of a micro-batch begins it."""
        asks, batch = self._asks, len(grant.activation)
        streams = grant.step in asks.layout.streams_ahead
        errand = asks.errand(self._memory, grant.step, batch, packed=True, streams=streams)
        header = Header(Kind.CLAIM, 0, grant.request, errand.step, errand.slot, batch, errand.element)
        arrivals: Arrivals[NDArray[Any]] = Arrivals()
        shape = asks.layout.steps[grant.step].output.shape
        claim, expected = self._memory.expect(arrivals, header, shape, errand)
        if grant.step == 0:
            message = asks.message(Kind.RUN_AHEAD, grant.request, grant.ask_slot, grant.activation, [errand])
        else:
            message = Message(Header(Kind.GRANT, 0, grant.request), [encode_errands([errand])])
        asks.conversation.ask(message, [expected])
        return _Owed(grant, arrivals, claim)
