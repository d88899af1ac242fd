"""The trusted end of a link: a device in another process or on another machine, behind the methods of `DevicePort`.

Nothing it says is believed: every answer is compared with what was asked, and its words are read from the slot that
was leased for them, in the shape of the trusted side's own plan. Reading them once is the business of the fused pass.
"""

from __future__ import annotations

import math
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slalom.arithmetic.keystream import SEED_SIZE
from slalom.arithmetic.pieces import whole_claim
from slalom.errors import ApiMisuse, DeviceError, WireError
from slalom.link.answers import NOT_ASKED, WorkerMemoryError
from slalom.link.asks import COMPUTE, DEAL, RUN, Asks
from slalom.link.conversation import Conversation, Message
from slalom.link.following import Coming, Following
from slalom.link.layout import make_layout
from slalom.link.memory import Memory, announce_memory
from slalom.link.message import (
    HELLO_SIZE,
    WELCOME_SIZE,
    Accelerator,
    Bulk,
    Header,
    Hello,
    Kind,
    Welcome,
    decode_welcome,
)
from slalom.link.port import Claim
from slalom.link.ticket import Post, Ticket
from slalom.plan import Plan
from slalom.plan.steps import Shape


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


class RemoteDevice:
    """A worker at the other end of a connection that `load` opens with `dial`.

    Several exchanges may be in flight (`submit`); answers come in the order of the asks. Any error ends the
    conversation, and every later call raises it.
    """

    def __init__(self, dial: Callable[[Plan], socket.socket], options: LinkOptions) -> None:
        self._dial = dial
        self._options = options
        self._asks: Asks | None = None
        self._memory: Memory | None = None
        # asks of `_known_batch` that were answered, all in one memory: it changes only for a larger batch
        self._known: set[tuple[str, ...]] = set()
        self._known_batch = 0
        self.welcome: Welcome | None = None

    def load(self, plan: Plan) -> None:
        """Connects, and makes sure that the worker says it has this very plan. Raises DeviceError, WireError."""
        layout = make_layout(plan)
        conversation = Conversation(self._dial(plan), self._options.timeout_seconds)
        asks = self._asks = Asks(conversation, layout, self._options.bulk)
        hello = Message(Header(Kind.HELLO, 0, size=HELLO_SIZE), [Hello(layout.digest, self._options.bulk).encode()])
        body = bytearray(WELCOME_SIZE)
        patience = max(self._options.start_seconds, self._options.timeout_seconds)
        conversation.call(hello, Header(Kind.WELCOME, 0, size=WELCOME_SIZE), body, patience)
        welcome = decode_welcome(bytes(body))
        if welcome.digest != layout.digest:
            raise WireError(NOT_ASKED)
        asks.packs = self._options.bulk is Bulk.INLINE or welcome.accelerator is Accelerator.CUDA
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
        asks = self._require_asks()
        ticket = asks.exchange(COMPUTE, self._require_memory(len(words)), words, asks.claims_of(step_names))
        if len(words) != self._known_batch:
            self._known, self._known_batch = set(), len(words)
        ticket.on_taken = partial(self._know, tuple(step_names), len(words))
        return ticket

    def post(self, step_names: Sequence[str], shape: Shape) -> Post | None:
        """As `submit`, before the words int32 [B, *shape] are made, which then go in pieces as they are.

        None where they cannot: LOAD-BEARING: a device that has not answered this very ask before may first have to make
        ready, and while it does so it takes no words, on which whoever reads its claims may have to wait.
        """
        asks, memory, batch = self._require_asks(), self._require_memory(shape[0]), shape[0]
        if batch != self._known_batch or tuple(step_names) not in self._known:
            return None
        count = math.prod(shape[1:])
        words = memory.way(batch, count, asks.layout.word_span(count, batch, memory.region.geometry.piece_size))
        if words is None:
            return None
        return Post(words, asks.exchange(COMPUTE, memory, words, asks.claims_of(step_names)))

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
        asks, memory = self._require_asks(), self._require_memory(shape[0])
        return asks.exchange(DEAL, memory, memory.room(shape), asks.claims_of(step_names), seed)

    def run(self, activation: NDArray[np.int16]) -> list[NDArray[Any]]:
        """The outputs of the whole network, in shared memory; see `DevicePort`."""
        asks, memory = self._require_asks(), self._require_memory(len(activation))
        ticket = asks.exchange(RUN, memory, activation, list(enumerate(asks.layout.output_shapes)))
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
        asks, memory = self._require_asks(), self._require_memory(max(len(activation) for activation in activations))
        return Following(asks, memory, self._options.timeout_seconds).claims(activations)

    def ping(self) -> float:
        """Seconds that an empty message takes to the device and back.

        Nothing may be on its way: an answer too many, or one that comes late, ends the conversation here.
        """
        conversation = self._require_asks().conversation
        begin = time.perf_counter()
        conversation.call(Message(Header(Kind.PING, 0)), Header(Kind.PONG, 0))
        return time.perf_counter() - begin

    def close(self) -> None:
        """Ends the connection; may be called twice."""
        if self._asks is not None:
            self._asks.conversation.end(DeviceError("the link is closed"))
        self._memory = None

    # ------------------------------------------------------------ what must be there

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

    def _require_asks(self) -> Asks:
        if self._asks is None:
            raise ApiMisuse("the link has no plan", hint="call load first")
        return self._asks

    def _require_memory(self, batch: int) -> Memory:
        """The region in use, or a larger one in its place: none of its slots is in use where the batch grows."""
        if self._memory is None or self._memory.batch < batch:
            if self._memory is not None and not self._memory.is_read:
                raise ApiMisuse("the batch grows while claims are under way", hint="ask for the largest one first")
            self._memory = None
            asks, options = self._require_asks(), self._options
            words = self._streams and self._takes_words
            geometry = asks.layout.geometry(
                batch, options.micro_batches, streams=self._streams, words=words, threads=options.threads
            )
            try:
                self._memory = announce_memory(
                    asks.conversation, geometry, batch, options.bulk, options.timeout_seconds
                )
            except WorkerMemoryError as error:
                if not self._is_accelerated:
                    raise
                raise self._too_large(batch) from error
        return self._memory

    def _too_large(self, batch: int) -> DeviceError:
        needed = self._require_asks().layout.footprint.total(batch)
        return DeviceError(
            f"the worker's GPU has not enough memory for micro-batches of {batch} images: this plan takes up to "
            f"{needed / 1e9:.1f} GB there",
            hint="ask for fewer images at once, or for more micro-batches",
        )
