"""How the trusted side asks: what it wants of a device, what must come back, and the message that says so."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from slalom.arithmetic.fused import PACKED_SIZE
from slalom.arithmetic.pieces import StreamedClaim, StreamedWords
from slalom.link.answers import Expected
from slalom.link.conversation import Arrivals, Conversation, Message, array_bytes
from slalom.link.layout import Layout
from slalom.link.memory import DTYPES, Memory, or_else
from slalom.link.message import NO_SLOT, Bulk, Element, Errand, Header, Kind, encode_errands, encode_span
from slalom.link.ticket import Ticket, do_nothing
from slalom.plan.steps import Shape


class Form(NamedTuple):
    """A kind of exchange: what is asked, what is answered."""

    ask: Kind
    answer: Kind
    element: Element


COMPUTE = Form(Kind.COMPUTE, Kind.CLAIM, Element.INT32)
RUN = Form(Kind.RUN, Kind.OUTPUT, Element.FLOAT32)
DEAL = Form(Kind.DEAL, Kind.CLAIM, Element.INT32)


class Asks:
    """The asks of one conversation, in order. `packs`: whether bytes are dearer than the work of packing claims."""

    def __init__(self, conversation: Conversation, layout: Layout, bulk: Bulk) -> None:
        self.conversation = conversation
        self.layout = layout
        self.packs = False
        self._bulk = bulk
        self._requests = 0

    def next_request(self) -> int:
        """The number of one more micro-batch."""
        self._requests += 1
        return self._requests

    def exchange(
        self,
        form: Form,
        memory: Memory,
        words: NDArray[Any] | StreamedWords,
        answers: Sequence[tuple[int, Shape]],
        seed: bytes | bytearray = b"",
    ) -> Ticket:
        """Asks about words that lie, or are put, in an ask slot; or will lie there, once the other side has expanded
        the seed; or come in pieces. `answers`: positions and shapes."""
        array = words.passage if isinstance(words, StreamedWords) else words
        batch, dtype = array.shape[0], array.dtype
        request, slot = self.next_request(), NO_SLOT
        release: Callable[[], None] = do_nothing
        if not isinstance(words, StreamedWords):
            slot = memory.place(words)
            release = partial(memory.asks.release, slot)
        arrivals: Arrivals[NDArray[Any]] = Arrivals()
        wanted = [(self._errand_of(form, memory, position, batch, dtype), shape) for position, shape in answers]
        promised: dict[int, StreamedClaim | None] = {}
        errands, expected = [], []
        # LOAD-BEARING: those with slots first, for what follows a claim in pieces comes only once that is read
        for errand, shape in sorted(wanted, key=lambda pair: pair[0].span > 0):
            header = Header(form.answer, 0, request, errand.step, errand.slot, batch, errand.element)
            errands.append(errand)
            promised[errand.step], answer = memory.expect(arrivals, header, shape, errand)
            expected.append(answer)
        if any(promised.values()):  # they are there before the device has read the last word that it was asked about
            expected[-1] = _and_then(expected[-1], release)
            release = do_nothing
        if isinstance(words, StreamedWords):
            expected[-1] = or_else(expected[-1], words.end)
        self.conversation.ask(self.message(form.ask, request, slot, words, errands, seed), expected)
        return Ticket(arrivals, [promised[position] for position, _ in answers], release)

    def claims_of(self, step_names: Sequence[str]) -> list[tuple[int, Shape]]:
        """The place of each linear step in the plan, and the shape of its claim."""
        positions = [self.layout.positions[name] for name in step_names]
        return [(position, self.layout.steps[position].output.shape) for position in positions]

    def errand(self, memory: Memory, position: int, batch: int, *, packed: bool, streams: bool) -> Errand:
        """A linear step with pieces or a slot for its claim: three bytes an element where that is asked and proved."""
        packs = packed and self.packs and self.layout.packs(position)
        element, width = (Element.INT24, PACKED_SIZE) if packs else (Element.INT32, 4)
        if streams and memory.ring is not None:
            span = self.layout.span(position, batch, width, memory.region.geometry.piece_size)
            if span:
                return Errand(position, NO_SLOT, element, span)
        return Errand(position, memory.lease_claim(), element)

    def message(
        self,
        kind: Kind,
        request: int,
        slot: int,
        words: NDArray[Any] | StreamedWords,
        errands: Sequence[Errand],
        seed: bytes | bytearray = b"",
    ) -> Message:
        """An ask about words. Behind the errands stand the words where no memory is shared, their seed, or the span of
        words in pieces."""
        if isinstance(words, StreamedWords):
            size, batch = words.nbytes, words.passage.batch
            header = Header(kind, 0, request, len(errands), slot, batch, Element.INT32, size)
            return Message(header, [encode_errands(errands), encode_span(words.passage.span)])
        element = next(element for element, dtype in DTYPES.items() if dtype == words.dtype)
        behind = self._bulk is Bulk.INLINE and not seed
        body = [bytes(seed)] if seed else [array_bytes(words)] if behind else []
        header = Header(kind, 0, request, len(errands), slot, len(words), element, len(seed) or words.nbytes)
        return Message(header, [encode_errands(errands), *body])

    def _errand_of(self, form: Form, memory: Memory, position: int, batch: int, dtype: np.dtype[Any]) -> Errand:
        """What is asked about such words: a linear step, or an output."""
        if form.element is not Element.INT32:
            return Errand(position, memory.lease_claim(), form.element)
        streams = position in self.layout.streams_asked
        return self.errand(memory, position, batch, packed=dtype == np.int16, streams=streams)


def _and_then(expected: Expected, more: Callable[[], None]) -> Expected:
    def deliver() -> None:
        expected.deliver()
        more()

    return replace(expected, deliver=deliver)
