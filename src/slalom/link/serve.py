"""The device's end of a link: takes asks, and has a device answer them where the answers belong.

It judges nothing of what the device says: a lie goes out as it was told, and is refused where it is checked.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from slalom.arithmetic.keystream import SEED_SIZE, expand_seed
from slalom.arithmetic.pieces import Passage
from slalom.errors import DeviceError, SlalomError, WireError
from slalom.link.channel import Channel, ChannelClosedError
from slalom.link.conversation import array_bytes
from slalom.link.layout import Layout
from slalom.link.message import (
    ERRAND_SIZE,
    HEADER_SIZE,
    NO_SLOT,
    REGION_SIZE,
    SPAN_SIZE,
    WELCOME_SIZE,
    Bulk,
    Element,
    Errand,
    Failure,
    Header,
    Kind,
    Welcome,
    decode_errands,
    decode_header,
    decode_region,
    decode_span,
)
from slalom.link.port import DevicePort
from slalom.link.region import Region, map_region
from slalom.plan.steps import Shape

_ASKED: Mapping[Element, np.dtype[Any]] = MappingProxyType(
    {Element.INT16: np.dtype(np.int16), Element.INT32: np.dtype(np.int32)}
)
_CLAIMED = frozenset({Element.INT32, Element.INT24})
_OUTPUT = frozenset({Element.FLOAT32})


@dataclass(frozen=True, eq=False)
class Served:
    """A device with the layout of the plan it has loaded, and what it says of itself."""

    device: DevicePort
    layout: Layout
    welcome: Welcome


@dataclass(frozen=True, eq=False)
class Asked:
    """One ask: its header, what is wanted, and the words that it is wanted of."""

    header: Header
    errands: tuple[Errand, ...]
    words: NDArray[Any]


class Answering(Protocol):
    """How a kind of device answers. What it raises ends the conversation."""

    def map(self, region: Region, batch: int) -> None:
        """Takes the memory in which words and answers lie from now on, of `batch` items at most.

        Raises MemoryError where the device has no room for them.
        """

    def compute(self, asked: Asked) -> None:
        """Answers the claims of linear steps that read one value."""

    def compute_in_pieces(self, header: Header, errands: tuple[Errand, ...], count: int, span: int) -> None:
        """As `compute`, of words that are still to come, `count` of each item, `span` of them in a piece.

        Raises WireError where the device takes none so, or the memory has no such ring.
        """

    def run_ahead(self, asked: Asked) -> None:
        """Begins a whole network; answers the claims that are granted a slot."""

    def grant(self, header: Header, errand: Errand) -> None:
        """Answers one claim more of a network that was begun."""

    def run(self, asked: Asked) -> None:
        """Answers the outputs of a whole network."""

    def say(self, header: Header) -> None:
        """Sends a header after every answer so far."""

    def stop(self) -> None:
        """Ends; nothing more is sent."""


class Mouth:
    """What sends: it numbers the messages."""

    def __init__(self, channel: Channel, bulk: Bulk) -> None:
        self._channel = channel
        self._bulk = bulk
        self._sent = 0

    def pour(self, passage: Passage, given: NDArray[Any]) -> None:
        """Puts a claim into the ring as its places are read; gives up once nobody is there or it stands still."""
        passage.write(given, self._channel.stall_seconds, lambda: self.is_left)

    @property
    def is_left(self) -> bool:
        """Whether nobody is at the other side any more."""
        return self._channel.is_left

    def say(self, header: Header, body: bytes | memoryview = b"") -> None:
        """Sends a header, and a body that belongs to it."""
        self._channel.send([replace(header, sequence=self._sent).encode(), body])
        self._sent += 1

    def answer(self, header: Header, given: NDArray[Any]) -> None:
        """Sends an answer's header, and its bytes where they travel behind it."""
        self.say(header, array_bytes(given) if self._bulk is Bulk.INLINE else b"")


class DeviceEnd:
    """Serves one trusted side over one channel, after its HELLO was taken, until it goes or goes wrong."""

    def __init__(
        self, served: Served, channel: Channel, bulk: Bulk, answering: Callable[[Served, Mouth], Answering]
    ) -> None:
        self._served = served
        self._channel = channel
        self._bulk = bulk
        self._received = 1  # the HELLO
        self._mouth = Mouth(channel, bulk)
        self._answering = answering(served, self._mouth)
        self._region: Region | None = None
        self._pool = ThreadPoolExecutor(served.welcome.threads, thread_name_prefix="slalom-seeds")  # none until used
        self._ways: Mapping[Kind, Callable[[Header], None]] = MappingProxyType(
            {
                Kind.REGION: self._map,
                Kind.COMPUTE: self._compute,
                Kind.DEAL: self._deal,
                Kind.RUN_AHEAD: lambda header: self._answering.run_ahead(self._ask_of_input(header)),
                Kind.GRANT: self._grant,
                Kind.RUN: self._run,
                Kind.PING: lambda header: self._answering.say(Header(Kind.PONG, 0)),
            }
        )

    def serve(self) -> None:
        """Answers until the trusted side is gone. A failure is sent as a code and ends the conversation.

        Raises WireError for what is malformed, and DeviceError where the device fails or has no room: who serves can
        serve the next.
        """
        try:
            self._mouth.say(Header(Kind.WELCOME, 0, size=WELCOME_SIZE), self._served.welcome.encode())
            while True:
                self._answer_next()
        except ChannelClosedError:
            return
        except WireError:
            self._fail(Failure.MALFORMED)
            raise
        except MemoryError as error:
            self._fail(Failure.MEMORY)
            raise DeviceError(str(error) or "not enough memory") from error
        except BaseException as error:
            self._fail(Failure.DEVICE)
            if isinstance(error, Exception) and not isinstance(error, SlalomError):
                raise DeviceError(f"the device failed with {type(error).__name__}") from error
            raise
        finally:
            self._answering.stop()
            self._pool.shutdown()

    # ------------------------------------------------------------ messages

    def _answer_next(self) -> None:
        header = decode_header(self._channel.receive(HEADER_SIZE, None))
        if header.sequence != self._received:
            raise WireError("a message is out of its order")
        self._received += 1
        way = self._ways.get(header.kind)
        if way is None:
            raise WireError(f"a {header.kind.name.lower()} has no place here")
        way(header)

    def _fail(self, failure: Failure) -> None:
        self._answering.stop()
        try:
            self._mouth.say(Header(Kind.FAILURE, 0, step=failure))
        except SlalomError:
            return  # nobody is there to be told

    # ------------------------------------------------------------ what is asked

    def _map(self, header: Header) -> None:
        geometry, name = decode_region(self._channel.receive_rest(_require_size(header, REGION_SIZE)))
        descriptor = self._channel.take_descriptor() if self._bulk is Bulk.MEMFD else None
        if geometry.piece_count and self._bulk is Bulk.INLINE:
            raise WireError("a ring needs memory that both sides see")
        self._region = None
        self._region = map_region(geometry, self._bulk, name, descriptor)
        self._answering.map(self._region, max(1, header.batch))
        self._answering.say(Header(Kind.READY, 0, batch=header.batch))

    def _compute(self, header: Header) -> None:
        errands, shape = self._steps_of_one_value(header)
        if header.slot != NO_SLOT:
            self._answering.compute(Asked(header, errands, self._words(header, shape)))
            return
        span = decode_span(self._channel.receive_rest(SPAN_SIZE))
        if header.element is not Element.INT32 or header.batch < 1:
            raise WireError("what comes in pieces is not blinded words")
        count = math.prod(shape)
        _require_size(header, header.batch * count * _ASKED[Element.INT32].itemsize)
        self._answering.compute_in_pieces(header, errands, count, span)

    def _deal(self, header: Header) -> None:
        """As COMPUTE, of the words that a seed stands for."""
        errands, shape = self._steps_of_one_value(header)
        seed = self._channel.receive_rest(_require_size(header, SEED_SIZE))
        if header.element is not Element.INT32:
            raise WireError("a seed stands for 32-bit words")
        words = self._ask_slot(header, shape)
        expand_seed(seed, words, self._share_out)
        self._answering.compute(Asked(header, errands, words))

    def _steps_of_one_value(self, header: Header) -> tuple[tuple[Errand, ...], Shape]:
        layout = self._served.layout
        errands = self._errands(header, len(layout.steps))
        sources = {layout.steps[errand.step].source for errand in errands}
        if len(sources) != 1:
            raise WireError("the steps of one ask read one value")
        _require_elements(errands, _CLAIMED)
        return errands, layout.sources[layout.steps[errands[0].step].name]

    def _run(self, header: Header) -> None:
        layout = self._served.layout
        errands = self._errands(header, len(layout.output_shapes))
        if [errand.step for errand in errands] != list(range(len(layout.output_shapes))):
            raise WireError("a run gives every output, in order")
        _require_elements(errands, _OUTPUT)
        if any(errand.span for errand in errands):
            raise WireError("only claims come through the ring")
        self._answering.run(Asked(header, errands, self._input(header)))

    def _ask_of_input(self, header: Header) -> Asked:
        errands = self._errands(header, len(self._served.layout.steps))
        _require_elements(errands, _CLAIMED)
        return Asked(header, errands, self._input(header))

    def _grant(self, header: Header) -> None:
        errands = self._errands(replace(header, step=1), len(self._served.layout.steps))
        _require_elements(errands, _CLAIMED)
        self._answering.grant(header, errands[0])

    def _errands(self, header: Header, count: int) -> tuple[Errand, ...]:
        if not 1 <= header.step <= count:
            raise WireError("an ask names more than there is, or nothing")
        errands = decode_errands(self._channel.receive_rest(header.step * ERRAND_SIZE))
        if any(errand.step >= count for errand in errands):
            raise WireError("an ask names what the plan does not have")
        return errands

    def _input(self, header: Header) -> NDArray[Any]:
        if header.element is not Element.INT16:
            raise WireError("the input of a network is an activation")
        return self._words(header, self._served.layout.input_shape)

    def _words(self, header: Header, shape: Shape) -> NDArray[Any]:
        words = self._ask_slot(header, shape)
        _require_size(header, words.nbytes)
        if self._bulk is Bulk.INLINE:
            self._channel.receive_into(array_bytes(words), self._channel.stall_seconds)
        return words

    def _ask_slot(self, header: Header, shape: Shape) -> NDArray[Any]:
        if self._region is None or header.element not in _ASKED or header.batch < 1:
            raise WireError("an ask comes before its memory, or holds no integers")
        return self._region.ask(header.slot, (header.batch, *shape), _ASKED[header.element])

    def _share_out(self, count: int, multiple: int, work: Callable[[int, int], None]) -> None:
        """Cuts 0..count among the threads that this worker says it has."""
        parts = max(1, min(self._served.welcome.threads, count))
        edges = [count * part // parts for part in range(parts + 1)]
        list(self._pool.map(work, edges[:-1], edges[1:]))


def _require_elements(errands: tuple[Errand, ...], allowed: frozenset[Element]) -> None:
    if any(errand.element not in allowed for errand in errands):
        raise WireError("an errand wants an answer of a type that is not given")


def _require_size(header: Header, size: int) -> int:
    if header.size != size:
        raise WireError("a message has another size than it must have")
    return size
