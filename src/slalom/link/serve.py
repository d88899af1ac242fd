"""The device's end of a link: takes asks, lets a device compute, and puts what it says where the answer belongs.

It judges nothing of what the device says: a lie goes out as it was told, and is refused where it is checked.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slalom.errors import SlalomError, WireError
from slalom.link.channel import Channel, ChannelClosedError
from slalom.link.conversation import array_bytes
from slalom.link.layout import Layout
from slalom.link.message import (
    ERRAND_SIZE,
    HEADER_SIZE,
    NO_SLOT,
    REGION_SIZE,
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
)
from slalom.link.port import DevicePort
from slalom.link.region import Region, map_region
from slalom.plan.steps import Shape

_ASKED: Mapping[Element, np.dtype[Any]] = MappingProxyType(
    {Element.INT16: np.dtype(np.int16), Element.INT32: np.dtype(np.int32)}
)
_ANSWERED = MappingProxyType(
    {np.dtype(np.int16): Element.INT16, np.dtype(np.int32): Element.INT32, np.dtype(np.float32): Element.FLOAT32}
)


@dataclass(frozen=True, eq=False)
class Served:
    """A device with the layout of the plan it has loaded, and what it says of itself."""

    device: DevicePort
    layout: Layout
    welcome: Welcome


class DeviceEnd:
    """Serves one trusted side over one channel, after its HELLO was taken, until it goes or goes wrong."""

    def __init__(self, served: Served, channel: Channel, bulk: Bulk) -> None:
        self._served = served
        self._channel = channel
        self._bulk = bulk
        self._received = 1  # the HELLO
        self._sent = 0
        self._region: Region | None = None
        self._answers: MappingProxyType[Kind, Callable[[Header], None]] = MappingProxyType(
            {
                Kind.REGION: self._map,
                Kind.COMPUTE: self._compute,
                Kind.RUN_AHEAD: self._run_ahead,
                Kind.RUN: self._run,
                Kind.PING: lambda header: self._send(Header(Kind.PONG, 0)),
            }
        )

    def serve(self) -> None:
        """Answers until the trusted side is gone. A failure is sent as a code and ends the conversation."""
        try:
            self._send(Header(Kind.WELCOME, 0, size=WELCOME_SIZE), self._served.welcome.encode())
            while True:
                header = self._receive()
                answer = self._answers.get(header.kind)
                if answer is None:
                    raise WireError(f"a {header.kind.name.lower()} has no place here")
                answer(header)
        except ChannelClosedError:
            return
        except WireError:
            self._fail(Failure.MALFORMED)
            raise
        except MemoryError:
            self._fail(Failure.MEMORY)
        except BaseException:
            self._fail(Failure.DEVICE)
            raise

    # ------------------------------------------------------------ messages

    def _receive(self) -> Header:
        header = decode_header(self._channel.receive(HEADER_SIZE, None))
        if header.sequence != self._received:
            raise WireError("a message is out of its order")
        self._received += 1
        return header

    def _send(self, header: Header, *parts: bytes | memoryview) -> None:
        self._channel.send([replace(header, sequence=self._sent).encode(), *parts])
        self._sent += 1

    def _fail(self, failure: Failure) -> None:
        try:
            self._send(Header(Kind.FAILURE, 0, step=failure))
        except SlalomError:
            return  # nobody is there to be told

    # ------------------------------------------------------------ what is asked

    def _map(self, header: Header) -> None:
        geometry, name = decode_region(self._channel.receive_rest(_require_size(header, REGION_SIZE)))
        descriptor = self._channel.take_descriptor() if self._bulk is Bulk.MEMFD else None
        self._region = None
        self._region = map_region(geometry, self._bulk, name, descriptor)
        self._send(Header(Kind.READY, 0, batch=header.batch))

    def _compute(self, header: Header) -> None:
        layout = self._served.layout
        errands = self._errands(header, len(layout.steps))
        names = [layout.steps[errand.step].name for errand in errands]
        if len({layout.steps[errand.step].source for errand in errands}) != 1:
            raise WireError("the steps of one ask read one value")
        words = self._words(header, layout.sources[names[0]])
        self._answer(header, Kind.CLAIM, errands, self._served.device.compute(names, words))

    def _run(self, header: Header) -> None:
        layout = self._served.layout
        errands = self._errands(header, len(layout.output_shapes))
        self._answer(header, Kind.OUTPUT, errands, self._served.device.run(self._words(header, layout.input_shape)))

    def _run_ahead(self, header: Header) -> None:
        """Each claim in the slot that was granted for it; the device goes no further than it is granted."""
        layout = self._served.layout
        granted = deque(self._errands(header, len(layout.steps)))
        left = len(layout.steps)
        for claim in self._served.device.run_ahead(self._words(header, layout.input_shape)):
            if left and not granted:
                granted.append(self._grant(header))
            slot = granted.popleft().slot if granted else NO_SLOT
            self._give(header, Kind.CLAIM, Errand(layout.positions.get(claim.step, NO_SLOT), slot), claim.words)
            left = max(0, left - 1)
        if left:  # the device stopped early: what is sent is what nobody expects
            self._give(header, Kind.CLAIM, Errand(NO_SLOT, NO_SLOT), np.empty(0, np.int32))

    def _grant(self, asked: Header) -> Errand:
        header = self._receive()
        if header.kind is not Kind.GRANT or header.request != asked.request:
            raise WireError("a grant was due")
        return Errand(header.step, header.slot)

    def _errands(self, header: Header, count: int) -> tuple[Errand, ...]:
        if not 1 <= header.step <= count:
            raise WireError("an ask names more than there is, or nothing")
        errands = decode_errands(self._channel.receive_rest(header.step * ERRAND_SIZE))
        if any(errand.step >= count for errand in errands):
            raise WireError("an ask names what the plan does not have")
        return errands

    def _words(self, header: Header, shape: Shape) -> NDArray[Any]:
        if self._region is None or header.element not in _ASKED:
            raise WireError("an ask comes before its memory, or holds no integers")
        words = self._region.ask(header.slot, (header.batch, *shape), _ASKED[header.element])
        _require_size(header, words.nbytes)
        if self._bulk is Bulk.INLINE:
            self._channel.receive_into(array_bytes(words), self._channel.stall_seconds)
        return words

    # ------------------------------------------------------------ what is answered

    def _answer(self, asked: Header, kind: Kind, errands: Sequence[Errand], answers: Iterable[Any]) -> None:
        """The answers in order. Too few or too many go out as they are: the other side expects something else."""
        nowhere = Errand(NO_SLOT, NO_SLOT)
        given = list(answers)
        for errand, words in itertools.zip_longest(errands, given[: len(errands) + 1], fillvalue=None):
            self._give(asked, kind, errand or nowhere, np.empty(0, np.int32) if words is None else words)

    def _give(self, asked: Header, kind: Kind, errand: Errand, words: NDArray[Any]) -> None:
        if self._region is None:
            raise WireError("an answer has no memory")
        given = np.ascontiguousarray(words)
        element = _ANSWERED.get(given.dtype, Element.OTHER)
        header = Header(kind, 0, asked.request, errand.step, errand.slot, len(given), element, given.nbytes)
        if self._bulk is Bulk.INLINE:
            self._send(header, array_bytes(given))
            return
        if errand.slot != NO_SLOT and given.nbytes <= self._region.geometry.claim_size:
            np.copyto(self._region.claim(errand.slot, given.shape, given.dtype), given)
        self._send(header)


def _require_size(header: Header, size: int) -> int:
    if header.size != size:
        raise WireError("a message has another size than it must have")
    return size
