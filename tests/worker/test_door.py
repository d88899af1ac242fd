"""The door: one right guest at a time comes in, and nobody who floods, dribbles or babbles keeps it shut."""

from __future__ import annotations

import os
import selectors
import socket
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from slalom.errors import DeviceError
from slalom.link.message import HEADER_SIZE, Bulk, Failure, Header, Hello, Kind, decode_header
from slalom.worker import door
from tests.link.serving import PATIENCE, wait_until
from tests.worker.guests import HELLO, Guest, Worker, guest_of


@pytest.fixture(scope="module")
def worker() -> Worker:
    return Worker()


def right_hello(worker: Worker) -> bytes:
    return HELLO.encode() + Hello(worker.layout.digest, Bulk.INLINE).encode()


def told(stream: socket.socket) -> Failure | None:
    """The code with which a guest is sent away, None where there is none."""
    raw = Guest(stream, Bulk.INLINE, b"").hear()
    stream.close()
    return Failure(decode_header(raw).step) if len(raw) == HEADER_SIZE else None


def test_a_right_guest_comes_in_again_and_again(worker: Worker) -> None:
    for _ in range(3):
        assert worker.serves()


def test_a_second_trusted_side_is_told_busy_and_the_first_goes_on(worker: Worker) -> None:
    with inside(worker) as first:
        for _ in range(3):
            with pytest.raises(DeviceError, match="serves somebody else"):
                worker.session()
        first.map_memory(2)
    assert worker.serves()


class inside:  # noqa: N801 - reads as a word
    """A guest who is in, for a while."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker

    def __enter__(self) -> Guest:
        end = time.monotonic() + PATIENCE
        while True:
            guest = guest_of(self._worker)
            guest.say(HELLO, Hello(guest.digest, guest.bulk).encode())
            if decode_header(guest.hear()).kind is Kind.WELCOME:
                guest.hear(48)
                self._guest = guest
                return guest
            guest.stream.close()
            assert time.monotonic() < end

    def __exit__(self, *_: object) -> None:
        self._guest.stream.close()


def test_two_hundred_idle_connections_keep_nobody_out(worker: Worker) -> None:
    idle = [worker.knock() for _ in range(200)]
    assert worker.serves()
    for stream in idle:
        stream.close()
    assert worker.serves()


def test_connections_that_say_half_a_hello_keep_nobody_out(worker: Worker) -> None:
    """Also where the oldest has just spoken when it is sent away to make room."""
    half = right_hello(worker)[:30]
    streams = []
    for _ in range(150):
        stream = worker.knock()
        stream.sendall(half)
        streams.append(stream)
    for stream in streams:
        try:
            stream.sendall(half[:1])
        except OSError:
            continue
    assert worker.serves()
    for stream in streams:
        stream.close()


def test_the_oldest_may_speak_in_the_moment_it_is_sent_away(monkeypatch: pytest.MonkeyPatch) -> None:
    gate = threading.Event()
    gate.set()

    class Gated(selectors.DefaultSelector):
        """Looks at nobody while the gate is shut, and then at the listener first."""

        def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
            gate.wait()
            return sorted(super().select(timeout), key=lambda event: event[0].fd)

    monkeypatch.setattr(door, "_TICK_SECONDS", 0.01)
    monkeypatch.setattr(selectors, "DefaultSelector", Gated)
    worker = Worker()
    streams = [worker.knock() for _ in range(door.WAITING_LIMIT)]
    time.sleep(0.1)  # until all are at the door; were they not, nothing would be sent away and the test be too easy
    gate.clear()
    time.sleep(0.05)
    streams.append(worker.knock())
    streams[0].sendall(b"S")
    gate.set()
    assert Guest(streams[0], Bulk.INLINE, b"").hear(1) == b""
    assert worker.serves()
    for stream in streams:
        stream.close()


def test_only_so_many_may_wait(worker: Worker) -> None:
    streams = [worker.knock() for _ in range(door.WAITING_LIMIT + 5)]
    gone = [stream for stream in streams[:5] if stream.recv(1) == b""]
    assert len(gone) == 5  # the oldest
    for stream in streams:
        stream.close()


@pytest.mark.parametrize("dribbled", [b"", b"S", None])
def test_who_does_not_say_all_of_it_in_time_is_sent_away(
    dribbled: bytes | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(door, "HELLO_SECONDS", 0.2)
    monkeypatch.setattr(door, "_TICK_SECONDS", 0.02)
    worker = Worker()
    stream = worker.knock()
    begin = time.monotonic()
    stopped = threading.Event()

    def dribble() -> None:
        try:
            for byte in right_hello(worker):
                stream.sendall(bytes([byte]))
                if stopped.wait(0.05):
                    return
        except OSError:
            return

    thread = threading.Thread(target=dribble)
    if dribbled is None:
        thread.start()
    else:
        stream.sendall(dribbled)
    assert Guest(stream, Bulk.INLINE, b"").hear() == b""
    assert 0.1 < time.monotonic() - begin < PATIENCE / 2
    stopped.set()
    if dribbled is None:
        thread.join()
    stream.close()
    assert worker.serves()


def hellos(worker: Worker) -> dict[str, tuple[bytes, Failure]]:
    hello = Hello(worker.layout.digest, Bulk.INLINE).encode()
    raw = HELLO.encode()
    noise = np.random.default_rng(0).bytes(88)
    other = Hello(bytes(32), Bulk.INLINE).encode()
    return {
        "another plan": (raw + other, Failure.PLAN),
        "version 0": (raw[:4] + b"\0\0" + raw[6:] + hello, Failure.VERSION),
        "version 1": (raw[:4] + b"\1\0" + raw[6:] + hello, Failure.VERSION),
        "version 3": (raw[:4] + b"\3\0" + raw[6:] + hello, Failure.VERSION),
        "version 5": (raw[:4] + b"\5\0" + raw[6:] + hello, Failure.VERSION),
        "another magic": (b"SLLN" + raw[4:] + hello, Failure.VERSION),
        "random bytes": (noise, Failure.VERSION),
        "a web request": (b"GET / HTTP/1.1\r\n" * 6, Failure.VERSION),
        "a later sequence": (replace(HELLO, sequence=1).encode() + hello, Failure.MALFORMED),
        "a request": (replace(HELLO, request=1).encode() + hello, Failure.MALFORMED),
        "a step": (replace(HELLO, step=1).encode() + hello, Failure.MALFORMED),
        "a slot": (replace(HELLO, slot=0).encode() + hello, Failure.MALFORMED),
        "a batch": (replace(HELLO, batch=1).encode() + hello, Failure.MALFORMED),
        "another size": (replace(HELLO, size=2**63).encode() + hello, Failure.MALFORMED),
        "a ping": (Header(Kind.PING, 0).encode() + hello, Failure.MALFORMED),
        "a welcome": (replace(HELLO, kind=Kind.WELCOME).encode() + hello, Failure.MALFORMED),
        "an unknown kind": (raw[:6] + b"\xff\0" + raw[8:] + hello, Failure.MALFORMED),
        "no bulk": (raw + hello[:32] + bytes(8), Failure.MALFORMED),
        "an unknown bulk": (raw + hello[:32] + b"\4" + bytes(7), Failure.MALFORMED),
        "a reserved word": (raw + hello[:36] + b"\1\0\0\0", Failure.MALFORMED),
    }


@pytest.mark.parametrize("name", [*hellos(Worker())])
def test_a_wrong_hello_is_told_its_code(name: str, worker: Worker) -> None:
    assert worker.serves()
    raw, code = hellos(worker)[name]
    stream = worker.knock()
    stream.sendall(raw)
    assert told(stream) is code
    assert worker.serves()


def test_who_goes_before_the_end_of_a_hello_costs_nothing(worker: Worker) -> None:
    assert worker.serves()
    before = len(list(Path("/proc/self/fd").iterdir()))
    for size in range(0, 88, 7):
        stream = worker.knock()
        stream.sendall(right_hello(worker)[:size])
        stream.close()
    assert worker.serves()
    assert wait_until(lambda: len(list(Path("/proc/self/fd").iterdir())) <= before)


def test_descriptors_sent_to_the_door_are_not_kept(tmp_path: Path) -> None:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "s"))
    listener.listen()
    with socket.socket(socket.AF_UNIX) as stream:
        opened = iter(door.Door(listener, bytes(32)))
        stream.connect(str(tmp_path / "s"))
        before = len(list(Path("/proc/self/fd").iterdir()))
        with open(os.devnull) as file:  # noqa: PTH123 - for its number
            socket.send_fds(stream, [HELLO.encode() + Hello(bytes(32), Bulk.MEMFD).encode()], [file.fileno()])
        guest, hello = next(opened)
        assert hello.bulk is Bulk.MEMFD
        assert len(list(Path("/proc/self/fd").iterdir())) <= before + 1  # the guest
        guest.close()
