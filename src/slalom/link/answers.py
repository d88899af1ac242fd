"""What the trusted side waits for: headers made from its own state, against which what arrives is compared.

Answers come in the order of the asks, or the conversation is over. One thread reads and hands on what was expected.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace

from slalom.errors import DeviceError, SlalomError, WireError, afresh
from slalom.link.channel import Channel, ChannelClosedError
from slalom.link.message import HEADER_SIZE, Failure, Header, Kind, decode_header, require_version

_WORDS = {
    Failure.VERSION: "speaks another version of the protocol",
    Failure.PLAN: "has another plan",
    Failure.MALFORMED: "did not understand what it was sent",
    Failure.DEVICE: "failed to compute",
    Failure.MEMORY: "has not enough memory",
    Failure.BUSY: "serves somebody else",
}
_HINTS = {
    Failure.PLAN: "start the worker with the same plan file",
    Failure.BUSY: "one trusted side at a time: start another worker",
    Failure.VERSION: "install the same version of slalom on both sides",
}
NOT_ASKED = "the worker's answer is not the one that was asked for"


class WorkerMemoryError(DeviceError):
    """The worker has not enough memory for what it is asked."""


@dataclass(frozen=True, eq=False)
class Expected:
    """One message to come: its header but for the sequence, and where its body goes, if one follows.

    `deliver` is called once it is there, `fail` if it never will be; each by the thread that reads.
    """

    header: Header
    body: memoryview | None
    deliver: Callable[[], None]
    fail: Callable[[SlalomError], None]


class Answers:
    """Reads one channel in a thread of its own. The first word out of line ends everything (WireError)."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._waiting: deque[Expected] = deque()
        self._lock = threading.Lock()
        self._sequence = 0
        self._over: SlalomError | None = None
        self._thread = threading.Thread(target=self._run, name="slalom-link", daemon=True)
        self._thread.start()

    def expect(self, expected: list[Expected]) -> None:
        """Adds what will be answered, in order; before it is asked. Raises the error that ended the conversation."""
        with self._lock:
            if self._over is not None:
                raise afresh(self._over)
            self._waiting.extend(expected)

    def end(self, error: SlalomError) -> SlalomError:
        """Ends the conversation: everyone who waits is told the first error that ended it, which is returned."""
        with self._lock:
            over = self._over = self._over or afresh(error)
            waiting, self._waiting = self._waiting, deque()
        self._channel.hang_up()
        for expected in waiting:
            expected.fail(over)
        return over

    def join(self, timeout_seconds: float) -> None:
        """Waits for the reading thread, which ends with the conversation."""
        self._thread.join(timeout_seconds)

    def _run(self) -> None:
        try:
            while self._take_next():
                pass
        except SlalomError as error:
            self.end(error)
        except BaseException as error:  # noqa: BLE001 - carried to those who wait, who raise it
            failure = DeviceError(f"the link failed with {type(error).__name__}")
            failure.__cause__ = error
            self.end(failure)

    def _take_next(self) -> bool:
        raw = self._receive_header()
        with self._lock:
            expected = self._waiting[0] if self._waiting else None
        if expected is None or raw != replace(expected.header, sequence=self._sequence).encode():
            raise refusal(raw)
        if expected.body is not None:
            self._channel.receive_into(expected.body, self._channel.stall_seconds)
        self._sequence += 1
        with self._lock:
            if self._over is not None:
                return False
            self._waiting.popleft()
        expected.deliver()
        return True

    def _receive_header(self) -> bytes:
        try:
            return self._channel.receive(HEADER_SIZE, None)
        except ChannelClosedError as error:
            raise DeviceError("the worker is gone") from error


def refusal(raw: bytes) -> SlalomError:
    """What to say of a header that was not expected. LOAD-BEARING: one constant text, never which field it was."""
    try:
        require_version(raw)
    except WireError as error:
        return error
    failure = _failure_in(raw)
    if failure is None:
        return WireError(NOT_ASKED)
    kind = WorkerMemoryError if failure is Failure.MEMORY else DeviceError
    return kind(f"the worker {_WORDS[failure]}", hint=_HINTS.get(failure))


def _failure_in(raw: bytes) -> Failure | None:
    try:
        header = decode_header(raw)
    except WireError:
        return None
    return Failure(header.step) if header.kind is Kind.FAILURE and header.step in list(Failure) else None
