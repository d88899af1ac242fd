"""The trusted end of a link: a device in another process or on another machine, behind the methods of `DevicePort`.

Nothing it says is believed: every answer is compared with what was asked, and its words are read from the slot that
was leased for them, in the shape of the trusted side's own plan. Reading them once is the business of the fused pass.
"""

from __future__ import annotations

import math
import socket
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from slalom.arithmetic.fused import PACKED_SIZE
from slalom.arithmetic.keystream import SEED_SIZE
from slalom.arithmetic.pieces import StreamedClaim, StreamedWords, whole_claim
from slalom.errors import ApiMisuse, DeviceError, WireError
from slalom.link.answers import NOT_ASKED, Expected, WorkerMemoryError
from slalom.link.conversation import Arrivals, Conversation, Message, array_bytes
from slalom.link.layout import Layout, make_layout
from slalom.link.memory import DTYPES, Memory, announce_memory, or_else
from slalom.link.message import (
    HELLO_SIZE,
    NO_SLOT,
    WELCOME_SIZE,
    Accelerator,
    Bulk,
    Element,
    Errand,
    Header,
    Hello,
    Kind,
    Welcome,
    decode_welcome,
    encode_errands,
    encode_span,
)
from slalom.link.port import Claim
from slalom.plan import Plan
from slalom.plan.steps import Shape

_GRANTS = 8  # claims that a device running ahead may owe
_UNSETTLED = 2  # claims in pieces that were handed on, and whose last word is still to come


class _Form(NamedTuple):
    """A kind of exchange: what is asked, what is answered."""

    ask: Kind
    answer: Kind
    element: Element


_COMPUTE = _Form(Kind.COMPUTE, Kind.CLAIM, Element.INT32)
_RUN = _Form(Kind.RUN, Kind.OUTPUT, Element.FLOAT32)
_DEAL = _Form(Kind.DEAL, Kind.CLAIM, Element.INT32)


@dataclass(frozen=True)
class LinkOptions:
    """How to speak with a worker. `micro_batches`: exchanges in flight; `timeout_seconds` bounds every wait, but for
    `start_seconds` that a worker may take to say its welcome. `streams`: whether claims come in pieces through a ring
    where memory is shared; by itself where the worker says that it fills rings beside all else that it does, as GPUs'
    copies do. `threads`: of the trusted side."""

    bulk: Bulk
    micro_batches: int
    timeout_seconds: float
    start_seconds: float = 60.0
    streams: bool | None = None
    threads: int = 1


class _Open(NamedTuple):
    """A conversation and what the trusted side's own plan says of it."""

    conversation: Conversation
    layout: Layout


class _Grant(NamedTuple):
    """Leave to make one claim of a micro-batch."""

    memory: Memory
    request: int
    ask_slot: int
    activation: NDArray[np.int16]
    step: int


@dataclass(frozen=True, eq=False)
class Coming:
    """A claim of a linear step that the link asked for, in pieces that are still to come."""

    step: str
    words: StreamedClaim


class _Owed(NamedTuple):
    """A claim that was granted: in its slot once it arrives, or in pieces, after which its last word arrives."""

    grant: _Grant
    arrivals: Arrivals[NDArray[Any]]
    claim: StreamedClaim | None


class Ticket:
    """Answers to come, to be taken once. `promised`: an array, or a claim in pieces, for each thing that was asked."""

    def __init__(
        self, arrivals: Arrivals[NDArray[Any]], promised: Sequence[StreamedClaim | None], release: Callable[[], None]
    ) -> None:
        self._arrivals = arrivals
        self._promised = promised
        self._release = release
        self._asked_at = time.perf_counter()
        self.on_taken: Callable[[], None] = _do_nothing

    def result(self, timeout_seconds: float) -> list[NDArray[Any] | StreamedClaim]:
        """The answers, in the order they were asked for. Raises DeviceError where one does not come in time.

        A claim in pieces may be still to come.
        """
        answers = [claim or self._arrivals.take(timeout_seconds) for claim in self._promised]
        self._release()
        self.on_taken()
        return answers

    @property
    def seconds(self) -> float:
        """From the ask to the last answer, once it is there."""
        return max(0.0, self._arrivals.arrived_at - self._asked_at)

    def start(self) -> None:
        """Has time count from now on: the words of an ask that was made before they were have gone."""
        self._asked_at = time.perf_counter()
        for claim in self._promised:
            if claim is not None:
                claim.asked_at = self._asked_at


class Post(NamedTuple):
    """An ask that was made before its words: they go to the device as a pass writes them to `words`."""

    words: StreamedWords
    ticket: Ticket

    @property
    def nbytes(self) -> int:
        """Of the words."""
        return self.words.nbytes


class RemoteDevice:
    """A worker at the other end of a connection that `load` opens with `dial`.

    Several exchanges may be in flight (`submit`); answers come in the order of the asks. Any error ends the
    conversation, and every later call raises it.
    """

    def __init__(self, dial: Callable[[Plan], socket.socket], options: LinkOptions) -> None:
        self._dial = dial
        self._options = options
        self._open: _Open | None = None
        self._memory: Memory | None = None
        self._requests = 0
        self._known: set[tuple[str, ...]] = set()  # asks of `_known_batch` that were answered
        self._known_batch = 0
        self.welcome: Welcome | None = None

    def load(self, plan: Plan) -> None:
        """Connects, and makes sure that the worker says it has this very plan. Raises DeviceError, WireError."""
        layout = make_layout(plan)
        conversation = Conversation(self._dial(plan), self._options.timeout_seconds)
        self._open = _Open(conversation, layout)
        hello = Message(Header(Kind.HELLO, 0, size=HELLO_SIZE), [Hello(layout.digest, self._options.bulk).encode()])
        body = bytearray(WELCOME_SIZE)
        patience = max(self._options.start_seconds, self._options.timeout_seconds)
        conversation.call(hello, Header(Kind.WELCOME, 0, size=WELCOME_SIZE), body, patience)
        welcome = decode_welcome(bytes(body))
        if welcome.digest != layout.digest:
            raise WireError(NOT_ASKED)
        self.welcome = welcome

    def outbox(self, shape: Shape) -> NDArray[np.int32]:
        """Room for the words of the next `submit`, int32 [B, *shape], where the device will read them.

        LOAD-BEARING: what is written there the device may see at once: blinded words, and nothing else.
        """
        return self._require_memory(shape[0]).room(shape)

    def submit(self, step_names: Sequence[str], words: NDArray[Any]) -> Ticket:
        """Asks for the claims of linear steps that read `words`, [B, *shape]: int32, or int16.

        Words that `outbox` gave are where they should be; others are copied. Each claim lies in a slot, which the
        device may still write to, and which is free again when nobody holds the claim.
        """
        ticket = self._exchange(_COMPUTE, words, self._claims_of(step_names))
        if len(words) != self._known_batch:
            self._known, self._known_batch = set(), len(words)
        ticket.on_taken = partial(self._know, tuple(step_names), len(words))
        return ticket

    def post(self, step_names: Sequence[str], shape: Shape) -> Post | None:
        """As `submit`, before the words int32 [B, *shape] are made, which then go in pieces as they are.

        None where they cannot: LOAD-BEARING: a device that has not answered this very ask before may first have to make
        ready, and while it does so it takes no words, on which whoever reads its claims may have to wait.
        """
        memory, batch = self._require_memory(shape[0]), shape[0]
        if memory.word_ring is None or batch != self._known_batch or tuple(step_names) not in self._known:
            return None
        count = math.prod(shape[1:])
        span = self._require_open().layout.word_span(count, batch, memory.region.geometry.piece_size)
        if not span:
            return None
        words = memory.way(batch, count, span)
        return Post(words, self._exchange(_COMPUTE, words, self._claims_of(step_names)))

    def _know(self, step_names: tuple[str, ...], batch: int) -> None:
        if batch == self._known_batch:
            self._known.add(step_names)

    def compute(self, step_names: Sequence[str], words: NDArray[Any]) -> list[NDArray[Any]]:
        """As `submit`, and waits for the claims."""
        return [whole_claim(claim) for claim in self.submit(step_names, words).result(self._options.timeout_seconds)]

    def deal(self, step_names: Sequence[str], seed: bytes | bytearray, shape: Shape) -> Ticket:
        """As `submit`, for the words int32 [B, *shape] that a seed stands for: of them only the seed crosses."""
        if len(seed) != SEED_SIZE:
            raise ApiMisuse(f"a seed has {SEED_SIZE} bytes, not {len(seed)}")
        answers = self._claims_of(step_names)
        return self._exchange(_DEAL, self.outbox(shape), answers, seed)

    def run(self, activation: NDArray[np.int16]) -> list[NDArray[Any]]:
        """The outputs of the whole network, in shared memory; see `DevicePort`."""
        answers = list(enumerate(self._require_open().layout.output_shapes))
        ticket = self._exchange(_RUN, activation, answers)
        return [whole_claim(output) for output in ticket.result(self._options.timeout_seconds)]

    def run_ahead(self, activation: NDArray[np.int16]) -> Iterator[Claim]:
        """The claims of one micro-batch, each as a whole; see `follow`."""
        claims = (claim for claim in self.follow([activation]) if claim is not None)
        return (Claim(claim.step, whole_claim(claim.words)) for claim in claims)

    def follow(self, activations: Sequence[NDArray[np.int16]]) -> Iterator[Claim | Coming | None]:
        """The claims of several micro-batches, one after another in plan order, and None after each micro-batch.

        The device makes a claim only where a slot was granted for it, so it is at most a few ahead; it begins with the
        next micro-batch while the last claims of one are on their way.
        """
        opened = self._require_open()
        self._require_memory(max(len(activation) for activation in activations))
        grants = (grant for activation in activations for grant in self._grants(activation))
        owed: deque[_Owed] = deque()
        unsettled: deque[_Owed] = deque()
        last = len(opened.layout.steps) - 1
        while True:
            while len(owed) < _GRANTS and (grant := next(grants, None)) is not None:
                owed.append(self._issue(grant))
            if not owed:
                break
            due = owed.popleft()
            step = opened.layout.steps[due.grant.step].name
            if due.claim is None:
                yield Claim(step, due.arrivals.take(self._options.timeout_seconds))
            else:
                yield Coming(step, due.claim)
            unsettled.append(due)
            if due.grant.step == last:
                yield None
            while len(unsettled) > _UNSETTLED:
                self._settle(unsettled.popleft(), last)
        for due in unsettled:
            self._settle(due, last)

    def _settle(self, due: _Owed, last: int) -> None:
        """Waits for the last word of a claim in pieces; after the last claim nobody reads the activation any more."""
        if due.claim is not None:
            due.arrivals.take(self._options.timeout_seconds)
        if due.grant.step == last:
            due.grant.memory.asks.release(due.grant.ask_slot)

    def _grants(self, activation: NDArray[np.int16]) -> Iterator[_Grant]:
        """What a micro-batch needs, in order; its activation is placed when the first is taken."""
        memory = self._require_memory(len(activation))
        request, slot = self._next_request(), memory.place(activation)
        for step in range(len(self._require_open().layout.steps)):
            yield _Grant(memory, request, slot, activation, step)

    def _issue(self, grant: _Grant) -> _Owed:
        """Leases a slot, or pieces, and lets the device make a claim; the first of a micro-batch begins it."""
        opened, batch = self._require_open(), len(grant.activation)
        streams = grant.step in opened.layout.streams_ahead
        errand = self._errand(grant.memory, grant.step, batch, packed=True, streams=streams)
        header = Header(Kind.CLAIM, 0, grant.request, errand.step, errand.slot, batch, errand.element)
        arrivals: Arrivals[NDArray[Any]] = Arrivals()
        shape = opened.layout.steps[grant.step].output.shape
        claim, expected = grant.memory.expect(arrivals, header, shape, errand)
        if grant.step == 0:
            message = self._message(Kind.RUN_AHEAD, grant.request, grant.ask_slot, grant.activation, [errand])
        else:
            message = Message(Header(Kind.GRANT, 0, grant.request), [encode_errands([errand])])
        opened.conversation.ask(message, [expected])
        return _Owed(grant, arrivals, claim)

    def ping(self) -> float:
        """Seconds that an empty message takes to the device and back.

        Nothing may be on its way: an answer too many, or one that comes late, ends the conversation here.
        """
        conversation = self._require_open().conversation
        begin = time.perf_counter()
        conversation.call(Message(Header(Kind.PING, 0)), Header(Kind.PONG, 0))
        return time.perf_counter() - begin

    def close(self) -> None:
        """Ends the connection; may be called twice."""
        if self._open is not None:
            self._open.conversation.end(DeviceError("the link is closed"))
        self._memory = None

    # ------------------------------------------------------------ one exchange

    def _exchange(
        self,
        form: _Form,
        words: NDArray[Any] | StreamedWords,
        answers: Sequence[tuple[int, Shape]],
        seed: bytes | bytearray = b"",
    ) -> Ticket:
        """Asks about words that lie, or are put, in an ask slot; or will lie there, once the other side has expanded
        the seed; or come in pieces."""
        going = words if isinstance(words, StreamedWords) else None
        array = words.passage if isinstance(words, StreamedWords) else words
        batch, dtype = array.shape[0], array.dtype
        memory, request, slot = self._require_memory(batch), self._next_request(), NO_SLOT
        release: Callable[[], None] = _do_nothing
        if not isinstance(words, StreamedWords):
            slot = memory.place(words)
            release = partial(memory.asks.release, slot)
        arrivals: Arrivals[NDArray[Any]] = Arrivals()
        streams = self._require_open().layout.streams_asked
        wanted = [
            (self._errand_of(form, memory, position, batch, dtype, position in streams), shape)
            for position, shape in answers
        ]
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
            release = _do_nothing
        if going is not None:
            expected[-1] = or_else(expected[-1], going.end)
        self._require_open().conversation.ask(self._message(form.ask, request, slot, words, errands, seed), expected)
        return Ticket(arrivals, [promised[position] for position, _ in answers], release)

    def _claims_of(self, step_names: Sequence[str]) -> list[tuple[int, Shape]]:
        """The place of each linear step in the plan, and the shape of its claim."""
        layout = self._require_open().layout
        positions = [layout.positions[name] for name in step_names]
        return [(position, layout.steps[position].output.shape) for position in positions]

    def _errand_of(
        self, form: _Form, memory: Memory, position: int, batch: int, dtype: np.dtype[Any], streams: bool
    ) -> Errand:
        """What is asked about such words: a linear step, or an output."""
        if form.element is Element.INT32:
            return self._errand(memory, position, batch, packed=dtype == np.int16, streams=streams)
        return Errand(position, memory.lease_claim(), form.element)

    def _errand(self, memory: Memory, position: int, batch: int, *, packed: bool, streams: bool) -> Errand:
        """A linear step with pieces or a slot for its claim: three bytes an element where that is asked and proved."""
        layout = self._require_open().layout
        packs = packed and self._packs and layout.packs(position)
        element, width = (Element.INT24, PACKED_SIZE) if packs else (Element.INT32, 4)
        if streams and memory.ring is not None:
            span = layout.span(position, batch, width, memory.region.geometry.piece_size)
            if span:
                return Errand(position, NO_SLOT, element, span)
        return Errand(position, memory.lease_claim(), element)

    @property
    def _packs(self) -> bool:
        """Whether bytes are dearer than the work of packing them: over a network, or behind a GPU."""
        return self._options.bulk is Bulk.INLINE or self._is_accelerated

    @property
    def _is_accelerated(self) -> bool:
        return self.welcome is not None and self.welcome.accelerator is Accelerator.CUDA

    @property
    def _streams(self) -> bool:
        """Whether claims come in pieces, through memory that both sides see."""
        wanted = self._takes_words if self._options.streams is None else self._options.streams
        return wanted and self._options.bulk is not Bulk.INLINE

    @property
    def _takes_words(self) -> bool:
        """Whether the worker says that it empties a ring while it fills another."""
        return self.welcome is not None and self.welcome.streams

    def _message(
        self,
        kind: Kind,
        request: int,
        slot: int,
        words: NDArray[Any] | StreamedWords,
        errands: Sequence[Errand],
        seed: bytes | bytearray = b"",
    ) -> Message:
        if isinstance(words, StreamedWords):
            size, batch = words.nbytes, words.passage.batch
            header = Header(kind, 0, request, len(errands), slot, batch, Element.INT32, size)
            return Message(header, [encode_errands(errands), encode_span(words.passage.span)])
        element = next(element for element, dtype in DTYPES.items() if dtype == words.dtype)
        behind = self._options.bulk is Bulk.INLINE and not seed
        body = [bytes(seed)] if seed else [array_bytes(words)] if behind else []
        header = Header(kind, 0, request, len(errands), slot, len(words), element, len(seed) or words.nbytes)
        return Message(header, [encode_errands(errands), *body])

    def _next_request(self) -> int:
        self._requests += 1
        return self._requests

    # ------------------------------------------------------------ what must be there

    def _require_open(self) -> _Open:
        if self._open is None:
            raise ApiMisuse("the link has no plan", hint="call load first")
        return self._open

    def _require_memory(self, batch: int) -> Memory:
        """The region in use, or a larger one in its place: none of its slots is in use where the batch grows."""
        if self._memory is None or self._memory.batch < batch:
            if self._memory is not None and not self._memory.is_read:
                raise ApiMisuse("the batch grows while claims are under way", hint="ask for the largest one first")
            self._memory = None
            self._known = set()  # a device makes ready again for another memory
            opened, options = self._require_open(), self._options
            words = self._streams and self._takes_words
            geometry = opened.layout.geometry(
                batch, options.micro_batches, streams=self._streams, words=words, threads=options.threads
            )
            try:
                self._memory = announce_memory(
                    opened.conversation, geometry, batch, options.bulk, options.timeout_seconds
                )
            except WorkerMemoryError as error:
                if not self._is_accelerated:
                    raise
                raise self._too_large(batch) from error
        return self._memory

    def _too_large(self, batch: int) -> DeviceError:
        needed = self._require_open().layout.footprint.total(batch)
        return DeviceError(
            f"the worker's GPU has not enough memory for micro-batches of {batch} images: this plan takes up to "
            f"{needed / 1e9:.1f} GB there",
            hint="ask for fewer images at once, or for more micro-batches",
        )


def _and_then(expected: Expected, more: Callable[[], None]) -> Expected:
    def deliver() -> None:
        expected.deliver()
        more()

    return replace(expected, deliver=deliver)


def _do_nothing() -> None:
    """Nothing is left to do."""
