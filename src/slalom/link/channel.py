"""Whole messages over a stream socket, each wait with an end: no byte of a message may be awaited for ever."""

from __future__ import annotations

import array
import contextlib
import math
import os
import select
import socket
import time
from collections.abc import Sequence

from slalom.errors import DeviceError, WireError

_FD_SIZE = array.array("i").itemsize


class ChannelClosedError(DeviceError):
    """The other side closed the connection, between messages or within one."""


class Channel:
    """One side of a connection: one thread may read while another writes, two may not do the same.

    `stall_seconds` bounds how long one message may take from its first byte to its last, in either direction.
    `descriptors` is how many may have come along and not been taken: one for a device, none for the trusted side.
    """

    def __init__(self, stream: socket.socket, stall_seconds: float, descriptors: int = 1) -> None:
        self._stream = stream
        self.stall_seconds = stall_seconds
        self._limit = descriptors
        self._descriptors: list[int] = []
        stream.setblocking(False)
        if stream.family != socket.AF_UNIX:
            stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def send(self, parts: Sequence[bytes | memoryview], descriptor: int | None = None) -> None:
        """Sends the parts as they stand, one after another; a descriptor goes along with the first byte.

        Raises ChannelClosedError where nobody reads any more, DeviceError where the other side does not take it in
        time.
        """
        deadline = time.monotonic() + self.stall_seconds
        rest = [memoryview(part).cast("B") for part in parts if len(part)]
        rights = [] if descriptor is None else [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [descriptor]))]
        try:
            while rest:
                try:
                    rest = _after(rest, self._stream.sendmsg(rest, rights))
                    rights = []
                except BlockingIOError:
                    self._wait(select.POLLOUT, deadline)
        except TimeoutError as error:
            raise DeviceError(f"the other side took no data for {self.stall_seconds:g} seconds") from error
        except OSError as error:
            raise ChannelClosedError("the connection is closed") from error

    def receive_into(self, target: memoryview, patience_seconds: float | None) -> None:
        """Fills `target`. The first byte may take `patience_seconds` (None: for ever), the rest `stall_seconds`.

        Raises ChannelClosedError at the end of the connection, DeviceError where the first byte does not come,
        WireError where the rest does not.
        """
        target = target.cast("B")
        deadline = None if patience_seconds is None else time.monotonic() + patience_seconds
        filled = 0
        try:
            while filled < len(target):
                try:
                    count = self._receive(target[filled:])
                except BlockingIOError:
                    self._wait(select.POLLIN, deadline)
                    continue
                if count == 0:
                    raise ChannelClosedError("the connection is closed")
                deadline = time.monotonic() + self.stall_seconds if filled == 0 else deadline
                filled += count
                if deadline is not None and filled < len(target) and time.monotonic() > deadline:
                    raise TimeoutError
        except TimeoutError as error:
            if filled:
                raise WireError("a message stopped half-way") from error
            raise DeviceError(f"no answer within {patience_seconds:g} seconds") from error
        except OSError as error:
            raise ChannelClosedError("the connection is closed") from error

    def receive(self, size: int, patience_seconds: float | None) -> bytes:
        """`size` bytes, which the caller knows to be few; as `receive_into`."""
        buffer = bytearray(size)
        self.receive_into(memoryview(buffer), patience_seconds)
        return bytes(buffer)

    def receive_rest(self, size: int) -> bytes:
        """`size` bytes of a message that has begun; as `receive_into`."""
        return self.receive(size, self.stall_seconds)

    def take_descriptor(self) -> int:
        """The descriptor that came along, now the caller's. Raises WireError where none did."""
        if not self._descriptors:
            raise WireError("a memory file was announced and did not come")
        return self._descriptors.pop(0)

    @property
    def is_left(self) -> bool:
        """Whether the other side closed a connection within this machine, read or not."""
        poll = select.poll()
        poll.register(self._stream, select.POLLRDHUP)
        return bool(poll.poll(0))

    def hang_up(self) -> None:
        """Ends the connection, for threads that wait in it too.

        LOAD-BEARING: its number stays taken until `close`, or such a thread could read from, or write to, whatever
        this process opens next.
        """
        with contextlib.suppress(OSError):
            self._stream.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Ends the connection and lets it go, once no other thread is at it; may be called twice."""
        self.hang_up()
        self._stream.close()
        while self._descriptors:
            os.close(self._descriptors.pop())

    def _wait(self, event: int, deadline: float | None) -> None:
        """Until the socket is ready or broken. Raises TimeoutError at the deadline."""
        poll = select.poll()
        poll.register(self._stream, event)
        left = None if deadline is None else deadline - time.monotonic()
        if (left is not None and left <= 0) or not poll.poll(None if left is None else math.ceil(left * 1000)):
            raise TimeoutError

    def _receive(self, target: memoryview) -> int:
        if self._stream.family != socket.AF_UNIX:
            return self._stream.recv_into(target)
        room = socket.CMSG_SPACE(self._limit * _FD_SIZE) if self._limit else 0  # without room the kernel drops them
        count, ancillary, flags, _ = self._stream.recvmsg_into([target], room, socket.MSG_CMSG_CLOEXEC)
        for level, kind, raw in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                descriptors = array.array("i")
                descriptors.frombytes(raw[: len(raw) - len(raw) % _FD_SIZE])
                self._descriptors.extend(descriptors)
        if flags & socket.MSG_CTRUNC or len(self._descriptors) > self._limit:
            raise WireError("more descriptors came than the protocol has")
        return count


def _after(parts: list[memoryview], count: int) -> list[memoryview]:
    """What is left of the parts once `count` bytes are gone."""
    while parts and count >= len(parts[0]):
        count -= len(parts[0])
        parts = parts[1:]
    return [parts[0][count:], *parts[1:]] if parts else []
