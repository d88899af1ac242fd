"""Whatever a guest asks once it is in: a code, nothing large in memory, and the next guest is served right."""

from __future__ import annotations

import threading
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

from slalom.arithmetic.keystream import SEED_SIZE
from slalom.errors import DeviceError
from slalom.link.layout import make_layout
from slalom.link.message import (
    NO_SLOT,
    REGION_SIZE,
    VERSION,
    Bulk,
    Element,
    Errand,
    Failure,
    Geometry,
    Header,
    Kind,
    encode_errands,
)
from tests.devices import NumpyDevice, plan_of
from tests.link.serving import wait_until
from tests.worker.guests import HELLO, NETWORK, Guest, Worker
from tests.worker.test_door import inside

BATCH = 2
LAYOUT = make_layout(plan_of(NETWORK))
INPUT = int(np.prod(LAYOUT.input_shape))
STEPS = len(LAYOUT.steps)
ASK = Header(Kind.COMPUTE, 0, 1, 1, 0, BATCH, Element.INT32, BATCH * INPUT * 4)
RUN = Header(Kind.RUN, 0, 1, 1, 0, BATCH, Element.INT16, BATCH * INPUT * 2)
DEAL = replace(ASK, kind=Kind.DEAL, size=SEED_SIZE)
AHEAD = replace(RUN, kind=Kind.RUN_AHEAD)
REGION = Header(Kind.REGION, 0, batch=BATCH, size=REGION_SIZE)
FIRST = Errand(0, 0, Element.INT32)
OUTPUT = Errand(0, 0, Element.FLOAT32)
LARGEST = 16 * 2**20


@dataclass(frozen=True)
class Ask:
    """A message of a guest that has mapped memory; `words` follow where memory is not shared."""

    header: Header
    errands: tuple[Errand, ...] = (FIRST,)
    words: bytes | None = None
    mapped: bool = True

    def tell(self, guest: Guest) -> None:
        size = self.header.size if self.header.size < LARGEST else 64
        words = bytes(size) if self.words is None else self.words
        guest.say(self.header, encode_errands(self.errands) + (words if guest.bulk is Bulk.INLINE else b""))


def asks() -> dict[str, Ask]:
    """Asks that no trusted side makes."""
    found = {
        "no items": Ask(replace(ASK, batch=0, size=0)),
        "no items of some size": Ask(replace(ASK, batch=0)),
        "four billion items": Ask(replace(ASK, batch=2**32 - 1)),
        "four billion items of their size": Ask(replace(ASK, batch=2**32 - 1, size=(2**32 - 1) * INPUT * 4)),
        "more items than there is memory for": Ask(replace(ASK, batch=1000, size=1000 * INPUT * 4)),
        "one byte more": Ask(replace(ASK, size=ASK.size + 1)),
        "one byte less": Ask(replace(ASK, size=ASK.size - 1)),
        "2^63 bytes": Ask(replace(ASK, size=2**63)),
        "2^64 - 1 bytes": Ask(replace(ASK, size=2**64 - 1)),
        "no bytes": Ask(replace(ASK, size=0)),
        "words in a slot out of range": Ask(replace(ASK, slot=3)),
        "words in no slot": Ask(replace(ASK, slot=NO_SLOT)),
        "no errands": Ask(replace(ASK, step=0), ()),
        "more errands than steps": Ask(replace(ASK, step=STEPS + 1), (FIRST,) * (STEPS + 1)),
        "four billion errands": Ask(replace(ASK, step=2**32 - 1)),
        "a step out of range": Ask(ASK, (Errand(STEPS, 0, Element.INT32),)),
        "the last step there could be": Ask(ASK, (Errand(2**32 - 1, 0, Element.INT32),)),
        "steps that read two values": Ask(replace(ASK, step=2), (FIRST, Errand(1, 1, Element.INT32))),
        "an answer in a slot out of range": Ask(ASK, (Errand(0, 2**16, Element.INT32),)),
        "an answer of 16-bit integers": Ask(ASK, (Errand(0, 0, Element.INT16),)),
        "an answer of floats": Ask(ASK, (Errand(0, 0, Element.FLOAT32),)),
        "an answer of no type": Ask(ASK, (Errand(0, 0, Element.NONE),)),
        "an answer in pieces without a ring": Ask(ASK, (Errand(0, NO_SLOT, Element.INT32, 1),)),
        "an answer in a slot and in pieces": Ask(ASK, (Errand(0, 0, Element.INT32, 1),)),
        "an output in pieces": Ask(RUN, (Errand(0, NO_SLOT, Element.FLOAT32, 1),)),
        "words of floats": Ask(replace(ASK, element=Element.FLOAT32)),
        "words of no type": Ask(replace(ASK, element=Element.NONE)),
        "packed words": Ask(replace(ASK, element=Element.INT24, size=BATCH * INPUT * 3)),
        "a whole run of blinded words": Ask(replace(RUN, element=Element.INT32, size=BATCH * INPUT * 4), (OUTPUT,)),
        "a run ahead of blinded words": Ask(replace(AHEAD, element=Element.INT32, size=BATCH * INPUT * 4)),
        "a run of outputs of integers": Ask(RUN, (FIRST,)),
        "a run of an output out of range": Ask(RUN, (Errand(1, 0, Element.FLOAT32),)),
        "a run without items": Ask(replace(RUN, batch=0, size=0), (OUTPUT,)),
        "a run ahead without items": Ask(replace(AHEAD, batch=0, size=0)),
        "a run ahead of floats": Ask(AHEAD, (OUTPUT,)),
        "a deal without a seed": Ask(replace(DEAL, size=0)),
        "a deal with half a seed": Ask(replace(DEAL, size=SEED_SIZE // 2)),
        "a deal with its words": Ask(replace(DEAL, size=ASK.size)),
        "a deal of activations": Ask(replace(DEAL, element=Element.INT16), words=bytes(SEED_SIZE)),
        "a deal without items": Ask(replace(DEAL, batch=0), words=bytes(SEED_SIZE)),
        "a deal of four billion items": Ask(replace(DEAL, batch=2**32 - 1), words=bytes(SEED_SIZE)),
        "a deal in a slot out of range": Ask(replace(DEAL, slot=3), words=bytes(SEED_SIZE)),
        "a deal of steps that read two values": Ask(replace(DEAL, step=2), (FIRST, Errand(1, 1, Element.INT32))),
        "a deal of floats": Ask(DEAL, (Errand(0, 0, Element.FLOAT32),), bytes(SEED_SIZE)),
        "a deal before its memory": Ask(DEAL, words=bytes(SEED_SIZE), mapped=False),
        "a grant before anything was begun": Ask(Header(Kind.GRANT, 0, 1), words=b""),
        "a grant of a step out of range": Ask(Header(Kind.GRANT, 0, 1), (Errand(STEPS, 0, Element.INT32),), b""),
        "a second hello": Ask(HELLO, (), bytes(40)),
        "a welcome": Ask(Header(Kind.WELCOME, 0), (), b""),
        "a claim": Ask(Header(Kind.CLAIM, 0), (), b""),
        "a failure": Ask(Header(Kind.FAILURE, 0, step=1), (), b""),
        "an ask before its memory": Ask(ASK, mapped=False),
        "a run before its memory": Ask(RUN, (OUTPUT,), mapped=False),
        "a run ahead before its memory": Ask(AHEAD, mapped=False),
    }
    geometry = LAYOUT.geometry(BATCH, 2)
    regions: dict[str, Geometry] = {
        "a region without asks": replace(geometry, ask_count=0),
        "a region without claims": replace(geometry, claim_count=0),
        "a region of too many asks": replace(geometry, ask_count=2**16 + 1),
        "a region of four billion claims": replace(geometry, claim_count=2**32 - 1),
        "a region of empty slots": replace(geometry, ask_size=0),
        "a region of uneven slots": replace(geometry, claim_size=4097),
        "a region with a ring of no size": replace(geometry, piece_count=4),
        "a region with a ring of three places": replace(geometry, piece_count=3, piece_size=4096),
        "a region with a ring of uneven places": replace(geometry, piece_count=4, piece_size=4097),
        "a region with a ring of 2^48 bytes": replace(geometry, piece_count=4, piece_size=2**46),
        "a region with a ring where bytes travel": replace(geometry, piece_count=4, piece_size=4096),
        "a region of 2^47 bytes": Geometry(1, 1, 2**46, 2**46),
        "a region of 2^48 bytes": Geometry(1, 1, 2**47, 2**47),
        "a region beyond 64 bits": Geometry(2**16, 2**16, 2**63, 2**63),
    }
    for name, region in regions.items():
        found[name] = Ask(REGION, (), region.encode(b""), mapped=False)
    found["a region of another size"] = Ask(
        replace(REGION, size=REGION_SIZE + 1), (), bytes(REGION_SIZE + 1), mapped=False
    )
    found["a region of 2^63 bytes of text"] = Ask(replace(REGION, size=2**63), (), bytes(REGION_SIZE + 1), mapped=False)
    return found


@pytest.fixture(scope="module")
def worker() -> Worker:
    return Worker()


@pytest.mark.parametrize("name", asks())
def test_a_malformed_ask_is_told_and_the_next_guest_served(name: str, worker: Worker) -> None:
    ask = asks()[name]
    tracemalloc.start()
    try:
        with inside(worker) as guest:
            if ask.mapped:
                guest.map_memory(BATCH)
            ask.tell(guest)
            assert guest.failure() is Failure.MALFORMED
        assert tracemalloc.get_traced_memory()[1] < LARGEST
    finally:
        tracemalloc.stop()
    assert worker.serves()


RAW: dict[str, Callable[[Guest], bytes]] = {
    "a sequence that skips one": lambda guest: replace(ASK, sequence=guest.said + 1).encode(),
    "a sequence that is repeated": lambda guest: replace(ASK, sequence=guest.said - 1).encode(),
    "the largest sequence": lambda guest: replace(ASK, sequence=2**64 - 1).encode(),
    "another version": lambda guest: ASK.encode()[:4] + bytes([VERSION + 1, 0]) + ASK.encode()[6:],
    "another magic": lambda guest: b"SLLN" + ASK.encode()[4:],
    "an unknown kind": lambda guest: ASK.encode()[:6] + b"\x30\0" + ASK.encode()[8:],
    "an unknown type": lambda guest: ASK.encode()[:36] + b"\x09\0\0\0" + ASK.encode()[40:],
    "zeros": lambda guest: bytes(48),
    "random bytes": lambda guest: np.random.default_rng(1).bytes(200),
    "half a header, and no more": lambda guest: ASK.encode()[:24],
}


@pytest.mark.parametrize("name", RAW)
def test_bytes_out_of_line_are_told_and_the_next_guest_served(name: str, worker: Worker) -> None:
    with inside(worker) as guest:
        guest.map_memory(BATCH)
        guest.stream.sendall(RAW[name](guest))
        assert guest.failure() is Failure.MALFORMED
    assert worker.serves()


@pytest.mark.parametrize("grants", ["of another request", "one too many"])
def test_grants_for_nothing_are_told(grants: str, worker: Worker) -> None:
    with inside(worker) as guest:
        guest.map_memory(BATCH)
        Ask(AHEAD).tell(guest)
        requests = [2] if grants == "of another request" else [1] * STEPS
        for request in requests:
            guest.say(Header(Kind.GRANT, 0, request), encode_errands([FIRST]))
        assert guest.failure() is Failure.MALFORMED
    assert worker.serves()


def test_who_goes_in_the_middle_costs_nothing(worker: Worker) -> None:
    whole = ASK.encode() + encode_errands([FIRST]) + bytes(ASK.size)
    for size in (0, 10, 48, 55, 60, 100):
        with inside(worker) as guest:
            guest.map_memory(BATCH)
            guest.stream.sendall(replace(ASK, sequence=guest.said).encode()[:size] + whole[48:size])
    assert worker.serves()


@pytest.mark.parametrize("error", [RuntimeError("out of memory"), ValueError("odd"), MemoryError(), OSError(5, "i/o")])
def test_a_device_that_fails_is_told_by_code_and_the_next_guest_served(error: Exception) -> None:
    class Failing(NumpyDevice):
        broken = True

        def linear(self, step: Any, words: Any) -> Any:
            if Failing.broken:
                raise error
            return super().linear(step, words)

    worker = Worker(Failing())
    with inside(worker) as guest:
        guest.map_memory(BATCH)
        Ask(ASK).tell(guest)
        assert guest.failure() is (Failure.MEMORY if isinstance(error, MemoryError) else Failure.DEVICE)
    Failing.broken = False
    assert worker.serves()
    assert all(isinstance(found, DeviceError) for found in worker.errors)


def test_nothing_is_left_of_thirty_guests(worker: Worker) -> None:
    assert worker.serves()
    before = threading.active_count()
    for _ in range(30):
        with inside(worker) as guest:
            guest.map_memory(BATCH)
    assert worker.serves()
    assert wait_until(lambda: threading.active_count() <= before)
