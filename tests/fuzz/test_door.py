"""The worker's door: whatever is said there, an answer of the protocol or none, and a right guest still comes in."""

from __future__ import annotations

import contextlib
import socket

import numpy as np

from slalom.link.message import HEADER_SIZE, Bulk, Failure, Hello, Kind, decode_header
from tests.fuzz.fuzzing import Budget, fuzz, number_words
from tests.mutation import mutate
from tests.worker.guests import HELLO, Guest, Worker


def test_whatever_is_said_at_the_door_right_guests_come_in(fuzz_seconds: float) -> None:
    worker = Worker()
    right = HELLO.encode() + Hello(worker.layout.digest, Bulk.INLINE).encode()

    def attempt(random: np.random.Generator) -> str:
        raw = mutate(right, random, number_words(random)) if random.integers(10) else random.bytes(100)
        with worker.knock() as stream:
            with contextlib.suppress(OSError):
                if random.integers(4):
                    stream.sendall(raw)
                else:
                    for begin in range(0, len(raw), 30):
                        stream.sendall(raw[begin : begin + 30])
                stream.shutdown(socket.SHUT_WR)
            heard = Guest(stream, Bulk.INLINE, b"").hear()
        assert worker.crash is None
        if len(heard) < HEADER_SIZE:
            return "sent away"
        header = decode_header(heard)
        assert header.kind in (Kind.WELCOME, Kind.FAILURE)
        return "welcome" if header.kind is Kind.WELCOME else Failure(header.step).name

    assert worker.serves()
    outcomes = fuzz(attempt, Budget(fuzz_seconds, 64 * 2**20))
    assert worker.serves()
    assert outcomes.total() > 20 * fuzz_seconds
    assert {"VERSION", "MALFORMED", "PLAN"} <= outcomes.keys()
