"""A connection as the trusted side sees it: what it sends is numbered, what it expects is noted before it asks."""

from __future__ import annotations

import queue
import socket
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Generic, TypeVar

from slalom.errors import DeviceError, SlalomError, afresh
from slalom.link.answers import Answers, Expected
from slalom.link.channel import Channel, ChannelClosedError
from slalom.link.message import Header

Item = TypeVar("Item")

_LAST_WORDS_SECONDS = 1.0  # for what the other side said before it closed


@dataclass(frozen=True, eq=False)
class Message:
    """What goes out: a header without its sequence, the parts behind it, a descriptor that goes along."""

    header: Header
    parts: Sequence[bytes | memoryview] = ()
    descriptor: int | None = None


class Arrivals(Generic[Item]):
    """Where answers wait for who asked: in order, each taken once. `arrived_at` is when the last one came."""

    def __init__(self) -> None:
        self._items: queue.SimpleQueue[Item | SlalomError] = queue.SimpleQueue()
        self.arrived_at = 0.0

    def expected(self, header: Header, body: memoryview | None, item: Item) -> Expected:
        """An answer on whose arrival `item` can be taken."""
        return Expected(header, body, partial(self._put, item), self._put)

    def take(self, timeout_seconds: float) -> Item:
        """The next item. Raises DeviceError where it does not arrive in time, or the error that ended it all."""
        try:
            item = self._items.get(timeout=timeout_seconds)
        except queue.Empty as error:
            raise DeviceError(f"the device did not answer within {timeout_seconds:g} seconds") from error
        if isinstance(item, SlalomError):
            raise afresh(item)
        return item

    def _put(self, item: Item | SlalomError) -> None:
        self.arrived_at = time.perf_counter()
        self._items.put(item)


@dataclass(eq=False)
class Conversation:
    """A connection with its reader. Safe to use from several threads; over at the first error."""

    stream: socket.socket
    timeout_seconds: float
    _sequence: int = 0
    _writing: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self._channel = Channel(self.stream, self.timeout_seconds, descriptors=0)
        self._answers = Answers(self._channel)

    def ask(self, message: Message, expected: list[Expected]) -> None:
        """Sends a message whose answers are `expected`. Raises the error that ended the conversation."""
        with self._writing:
            self._answers.expect(expected)
            header = replace(message.header, sequence=self._sequence).encode()
            self._sequence += 1
            try:
                self._channel.send([header, *message.parts], message.descriptor)
            except SlalomError as error:
                if isinstance(error, ChannelClosedError):  # it may have said why
                    self._answers.join(min(self.timeout_seconds, _LAST_WORDS_SECONDS))
                raise afresh(self._answers.end(error)) from None

    def call(
        self, message: Message, answer: Header, body: bytearray | None = None, patience_seconds: float | None = None
    ) -> None:
        """Sends a message and waits for its one answer, whose body fills `body`."""
        arrivals: Arrivals[None] = Arrivals()
        view = None if body is None else memoryview(body)
        self.ask(message, [arrivals.expected(answer, view, None)])
        arrivals.take(self.timeout_seconds if patience_seconds is None else patience_seconds)

    def end(self, error: SlalomError) -> None:
        """Ends the conversation, and its reader with it; may be called twice."""
        self._answers.end(error)
        self._answers.join(self.timeout_seconds)
        with self._writing:
            self._channel.close()


def array_bytes(array: Any) -> memoryview:
    """The bytes of a C-contiguous array."""
    return memoryview(array).cast("B")
