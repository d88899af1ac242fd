"""The worker's serving loop: a whole conversation of a trusted side, changed anywhere, is answered or refused."""

from __future__ import annotations

import socket
from dataclasses import replace
from functools import cache

import numpy as np

from slalom.errors import WireError
from slalom.link.calls import CallAnswering
from slalom.link.channel import Channel
from slalom.link.layout import make_layout
from slalom.link.message import (
    REGION_SIZE,
    Bulk,
    Element,
    Errand,
    Failure,
    Header,
    Kind,
    decode_header,
    encode_errands,
)
from slalom.link.serve import DeviceEnd
from tests.devices import NumpyDevice, plan_of
from tests.fuzz.fuzzing import Budget, fuzz, number_words
from tests.link.serving import nothing_left, served
from tests.mutation import mutate
from tests.worker.guests import Guest

PLAN = plan_of("dense")
LAYOUT = make_layout(PLAN)
BATCH = 2
COUNT = BATCH * LAYOUT.input_shape[0]


@cache
def conversation() -> tuple[bytes, ...]:
    """Right messages after a hello, one of each kind at least."""
    region = LAYOUT.geometry(BATCH, 2).encode(b"")
    asked = Header(Kind.COMPUTE, 0, 1, 1, 0, BATCH, Element.INT32, COUNT * 4)
    run = Header(Kind.RUN, 0, 2, 1, 1, BATCH, Element.INT16, COUNT * 2)
    words, activation = bytes(range(COUNT * 4)), b"\1\0" * COUNT
    messages = (
        (Header(Kind.REGION, 0, batch=BATCH, size=REGION_SIZE), region),
        (asked, encode_errands([Errand(0, 0, Element.INT32)]) + words),
        (replace(asked, kind=Kind.DEAL, size=32), encode_errands([Errand(0, 0, Element.INT32)]) + bytes(32)),
        (Header(Kind.PING, 0), b""),
        (run, encode_errands([Errand(0, 1, Element.FLOAT32)]) + activation),
        (replace(run, kind=Kind.RUN_AHEAD, request=3), encode_errands([Errand(0, 2, Element.INT24)]) + activation),
        (Header(Kind.GRANT, 0, 3), encode_errands([Errand(1, 3, Element.INT32)])),
        (Header(Kind.PING, 0), b""),
    )
    return tuple(replace(header, sequence=index + 1).encode() + body for index, (header, body) in enumerate(messages))


def attempt(random: np.random.Generator) -> str:
    messages = list(conversation())
    for _ in range(int(random.integers(1, 3))):
        place = int(random.integers(len(messages)))
        if random.integers(8) == 0:
            messages[place] = messages[int(random.integers(len(messages)))]
        else:
            messages[place] = mutate(messages[place], random, number_words(random))
    return serve(b"".join(messages))


def serve(raw: bytes) -> str:
    """What became of a conversation: how many answers, and the last word."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.sendall(raw)
        ours.shutdown(socket.SHUT_WR)
        device = NumpyDevice()
        device.load(PLAN)
        channel = Channel(theirs, 5.0)
        try:
            DeviceEnd(served(device, LAYOUT), channel, Bulk.INLINE, CallAnswering).serve()
            told = "gone"
        except WireError as error:
            told = str(error)
        finally:
            channel.close()
        return f"{answers(Guest(ours, Bulk.INLINE, b''))} answers, {told}"


def answers(guest: Guest) -> int:
    """How many whole answers were given; what is given follows the protocol."""
    count, sequence = -1, 0  # the welcome is none
    while raw := guest.hear():
        header = decode_header(raw)
        assert header.sequence == sequence
        sequence += 1
        if header.kind is Kind.FAILURE:
            assert header.step == Failure.MALFORMED
            assert guest.hear() == b""
            return count
        assert header.size < 2**16
        assert len(guest.hear(header.size)) == header.size
        count += 1
    return count


def test_the_conversation_is_right() -> None:
    assert serve(b"".join(conversation())) == "8 answers, gone"


def test_whatever_is_asked_the_worker_answers_or_refuses(fuzz_seconds: float) -> None:
    with nothing_left():
        outcomes = fuzz(attempt, Budget(fuzz_seconds, 128 * 2**20))
    assert outcomes.total() > 20 * fuzz_seconds
    assert len(outcomes) > 25
