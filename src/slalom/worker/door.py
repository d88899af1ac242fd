"""Who may come in: whoever says a right hello within a few seconds, one at a time; everybody else is sent away.

Connections cost the door a few bytes each, and only a few may wait: a flood of them, or one that dribbles, holds up
nobody who speaks the protocol.
"""

from __future__ import annotations

import contextlib
import queue
import selectors
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from slalom.errors import WireError
from slalom.link.message import (
    HEADER_SIZE,
    HELLO_SIZE,
    Failure,
    Header,
    Hello,
    Kind,
    decode_header,
    decode_hello,
    require_version,
)

HELLO_SECONDS = 5.0
WAITING_LIMIT = 32  # connections that have not said their hello; beyond it the oldest goes

_TICK_SECONDS = 0.5


@dataclass(eq=False)
class _Guest:
    """A connection that has not said all of its hello."""

    stream: socket.socket
    deadline: float
    said: bytearray = field(default_factory=bytearray)


class Door:
    """Takes connections in a thread of its own; iterating gives each guest that may come in, with its hello.

    `digest` is of the plan that is served. The next guest comes in once the iteration asks for it.
    """

    def __init__(self, listener: socket.socket, digest: bytes) -> None:
        self._listener = listener
        self._digest = digest
        self._inside = threading.Event()
        self._guests: queue.SimpleQueue[tuple[socket.socket, Hello]] = queue.SimpleQueue()
        self._selector = selectors.DefaultSelector()
        self._waiting: dict[socket.socket, _Guest] = {}
        listener.setblocking(False)
        self._selector.register(listener, selectors.EVENT_READ)
        threading.Thread(target=self._run, name="slalom-door", daemon=True).start()

    def __iter__(self) -> Iterator[tuple[socket.socket, Hello]]:
        """Guests, one after another, for ever."""
        while True:
            self._inside.clear()
            yield self._guests.get()

    def _run(self) -> None:
        while True:
            for key, _ in self._selector.select(_TICK_SECONDS):
                if key.fileobj is self._listener:
                    self._accept()
                elif isinstance(key.fileobj, socket.socket) and key.fileobj in self._waiting:
                    self._hear(self._waiting[key.fileobj])  # who was not just sent away to make room
            now = time.monotonic()
            for guest in [guest for guest in self._waiting.values() if guest.deadline < now]:
                self._send_away(guest)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            stream, _ = self._listener.accept()
            stream.setblocking(False)
            if len(self._waiting) >= WAITING_LIMIT:
                self._send_away(next(iter(self._waiting.values())))
            self._waiting[stream] = _Guest(stream, time.monotonic() + HELLO_SECONDS)
            self._selector.register(stream, selectors.EVENT_READ)

    def _hear(self, guest: _Guest) -> None:
        try:
            piece = guest.stream.recv(HEADER_SIZE + HELLO_SIZE - len(guest.said))
        except BlockingIOError:
            return
        except OSError:
            piece = b""
        guest.said += piece
        if not piece:
            self._send_away(guest)
        elif len(guest.said) >= HEADER_SIZE:
            self._judge(guest)

    def _judge(self, guest: _Guest) -> None:
        """Lets a guest in whose hello is whole and right; tells a wrong one why, by a code."""
        try:
            require_version(bytes(guest.said))
        except WireError:
            return self._send_away(guest, Failure.VERSION)
        try:
            header = decode_header(bytes(guest.said[:HEADER_SIZE]))
            if header != Header(Kind.HELLO, 0, size=HELLO_SIZE):
                return self._send_away(guest, Failure.MALFORMED)
            if len(guest.said) < HEADER_SIZE + HELLO_SIZE:
                return None
            hello = decode_hello(bytes(guest.said[HEADER_SIZE:]))
        except WireError:
            return self._send_away(guest, Failure.MALFORMED)
        if hello.digest != self._digest:
            return self._send_away(guest, Failure.PLAN)
        if self._inside.is_set():
            return self._send_away(guest, Failure.BUSY)
        self._inside.set()
        self._forget(guest)
        return self._guests.put((guest.stream, hello))

    def _send_away(self, guest: _Guest, failure: Failure | None = None) -> None:
        self._forget(guest)
        with contextlib.suppress(OSError):
            if failure is not None:
                guest.stream.send(Header(Kind.FAILURE, 0, step=failure).encode())
        guest.stream.close()

    def _forget(self, guest: _Guest) -> None:
        self._selector.unregister(guest.stream)
        del self._waiting[guest.stream]
