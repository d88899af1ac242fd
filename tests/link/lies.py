"""What a hostile worker may do to the messages it sends, each under a name in words, with what must become of it."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from slalom.errors import DeviceError, SlalomError, WireError
from slalom.link.answers import NOT_ASKED
from slalom.link.message import HEADER_SIZE, NO_SLOT, VERSION, Bulk, Element, Failure, Header, Kind
from tests.link.hostile import (
    ANSWERS,
    Act,
    Hostile,
    Said,
    dribble,
    extra,
    failure,
    field_lie,
    hold,
    send,
    send_and_go,
    send_and_rest,
    with_descriptors,
)

AHEAD, LAYERWISE, PRIVATE, BLINDED, DEVICE = LEVELS = (
    ("verified", "ahead"),
    ("verified", "layerwise"),
    ("private", "ahead"),
    ("blinded", "ahead"),
    ("device", "ahead"),
)
PINGED = LEVELS[:-1]  # nothing follows the outputs at the level `device`
BOTH = (Bulk.MEMFD, Bulk.INLINE)
SHORT = 0.3

STRANGER = "the other side does not speak this protocol"
ODD_WELCOME = "a welcome holds what the protocol does not have"
HALF = "a message stopped half-way"
GONE = "the worker is gone"
CLOSED = "the connection is closed"
LATE = f"the device did not answer within {SHORT:g} seconds"
DESCRIPTORS = "more descriptors came than the protocol has"


def version_text(version: int) -> str:
    """What is said of another version."""
    return f"the other side speaks version {version} of the protocol, this one version {VERSION}"


@dataclass(frozen=True)
class Case:
    """One thing to do in place of one message; `says` are the texts that the error may have, each a constant."""

    name: str
    kinds: frozenset[Kind]
    act: Act
    error: tuple[type[SlalomError], ...] = (WireError,)
    says: tuple[str, ...] = (NOT_ASKED,)
    levels: tuple[tuple[str, str], ...] = LEVELS
    bulks: tuple[Bulk, ...] = BOTH
    timeout_seconds: float | None = None
    place: int = 0


def only(kind: Kind) -> frozenset[Kind]:
    return frozenset({kind})


def fixed(raw: bytes) -> Callable[[Said], bytes]:
    return lambda said: raw


def all_cases() -> list[Case]:
    """Every case. A name is used once."""
    cases = [*answer_fields(), *other_fields(), *welcome_bodies(), *strangers(), *codes(), *orders(), *ends(), *waits()]
    assert len({case.name for case in cases}) == len(cases)
    return cases


def answer_fields() -> Iterator[Case]:
    """Every field of the header of a claim or an output."""
    lies: dict[str, tuple[str, Callable[[int], int]]] = {
        "of the kind of a pong": ("kind", lambda _: Kind.PONG),
        "of the kind of a ready": ("kind", lambda _: Kind.READY),
        "of the other kind of answer": ("kind", lambda kind: Kind.CLAIM + Kind.OUTPUT - kind),
        "of a kind of the trusted side": ("kind", lambda _: Kind.COMPUTE),
        "of kind zero": ("kind", lambda _: 0),
        "of an unknown kind": ("kind", lambda _: 999),
        "whose sequence skips one": ("sequence", lambda sequence: sequence + 1),
        "whose sequence is repeated": ("sequence", lambda sequence: sequence - 1),
        "whose sequence begins anew": ("sequence", lambda _: 0),
        "whose sequence is the largest": ("sequence", lambda _: 2**64 - 1),
        "to the next request": ("request", lambda request: request + 1),
        "to the request before": ("request", lambda request: request - 1),
        "to a request beyond 32 bits": ("request", lambda request: request + 2**32),
        "of another step": ("step", lambda step: step ^ 1),
        "of a step that does not exist": ("step", lambda _: 1000),
        "of no step": ("step", lambda _: NO_SLOT),
        "in the slot beside": ("slot", lambda slot: slot ^ 1),
        "in a slot out of range": ("slot", lambda _: 2**16),
        "in no slot": ("slot", lambda _: NO_SLOT),
        "with one item more": ("batch", lambda batch: batch + 1),
        "with one item less": ("batch", lambda batch: batch - 1),
        "with no items": ("batch", lambda _: 0),
        "with four billion items": ("batch", lambda _: 2**32 - 1),
        "of no type": ("element", lambda _: Element.NONE),
        "of 16-bit integers": ("element", lambda _: Element.INT16),
        "of another type that exists": ("element", lambda element: 5 - element if element in (2, 3) else 2),
        "of the type of the others": ("element", lambda _: Element.OTHER),
        "of an unknown type": ("element", lambda _: 77),
        "one byte larger": ("size", lambda size: size + 1),
        "one byte smaller": ("size", lambda size: size - 1),
        "one word larger": ("size", lambda size: size + 4),
        "without bytes": ("size", lambda _: 0),
        "of 2^63 bytes": ("size", lambda _: 2**63),
        "of 2^64 - 1 bytes": ("size", lambda _: 2**64 - 1),
    }
    for index, (name, (field, change)) in enumerate(lies.items()):
        bulks = BOTH if field in ("batch", "element", "size") else BOTH[index % 2 :][:1]  # where a body could be sized
        yield Case(f"an answer {name}", ANSWERS, field_lie(field, change), bulks=bulks)
        if field in ("sequence", "slot", "step"):
            yield Case(f"a second answer {name}", ANSWERS, field_lie(field, change), bulks=bulks, place=1)


def other_fields() -> Iterator[Case]:
    """The fields of the messages that hold no array."""
    lies: dict[str, tuple[str, Callable[[int], int]]] = {
        "of another kind": ("kind", lambda _: Kind.CLAIM),
        "with another sequence": ("sequence", lambda sequence: sequence + 1),
        "with a request": ("request", lambda _: 1),
        "with a step": ("step", lambda _: 1),
        "with a slot": ("slot", lambda _: 0),
        "with another batch": ("batch", lambda batch: batch + 1),
        "with a type": ("element", lambda _: Element.INT32),
        "of another size": ("size", lambda size: size + 8),
        "of 2^63 bytes": ("size", lambda _: 2**63),
    }
    for kind, levels in ((Kind.WELCOME, (AHEAD,)), (Kind.READY, (AHEAD, PRIVATE, DEVICE)), (Kind.PONG, PINGED)):
        for name, (field, change) in lies.items():
            yield Case(f"a {kind.name.lower()} {name}", only(kind), field_lie(field, change), levels=levels,
                       bulks=(Bulk.MEMFD,))  # fmt: skip


def welcome_bodies() -> Iterator[Case]:
    """What a welcome says of the worker: its digest, confinement, accelerator, threads, and a word of zeros."""

    def body(offset: int, value: int) -> Act:
        def make(said: Said) -> bytes:
            changed = bytearray(said.body)
            struct.pack_into("<I", changed, offset, value)
            return said.header + bytes(changed)

        return send(make)

    for name, offset, value, says in (
        ("another digest", 0, 0, NOT_ASKED),
        ("a digest that ends in another way", 28, 0, NOT_ASKED),
        ("the lowest unknown isolation bit", 32, 2**16, ODD_WELCOME),
        ("every isolation bit", 32, 2**32 - 1, ODD_WELCOME),
        ("no accelerator", 36, 0, ODD_WELCOME),
        ("an unknown accelerator", 36, 3, ODD_WELCOME),
        ("neither streams nor does not", 44, 2, ODD_WELCOME),
    ):
        yield Case(f"a welcome with {name}", only(Kind.WELCOME), body(offset, value), says=(says,), levels=(AHEAD,))


def strangers() -> Iterator[Case]:
    """Bytes of another protocol, of another version, or of none."""
    noise = np.random.default_rng(7).bytes(4096)
    for name, raw in (
        ("bytes that are all alike", b"\xaa" * 4096),
        ("random bytes", noise),
        ("zeros", bytes(4096)),
        ("a web page", b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n" + b" " * 100),
        ("a tls alert", b"\x15\x03\x01\x00\x02\x02\x28" * 10),
    ):
        for kind in (only(Kind.WELCOME), ANSWERS):
            place = "a welcome" if kind is not ANSWERS else "an answer"
            levels = LEVELS if kind is ANSWERS else (AHEAD,)
            yield Case(f"{name} in place of {place}", kind, send(fixed(raw)), says=(STRANGER,), levels=levels)
    magic = field_lie("magic", lambda _: b"SLLN")
    yield Case("an answer with another magic", ANSWERS, magic, says=(STRANGER,))
    for version in (0, VERSION - 1, VERSION + 1, 65535):
        act = field_lie("version", lambda _, version=version: version)  # type: ignore[misc]
        says = (version_text(version),)
        yield Case(f"a welcome of version {version}", only(Kind.WELCOME), act, says=says, levels=(AHEAD,))
        yield Case(f"an answer of version {version}", ANSWERS, act, says=says)


def codes() -> Iterator[Case]:
    """Failures that the device tells of, each by its code; a code that does not exist is one more lie."""
    words = {
        Failure.VERSION: "the worker speaks another version of the protocol",
        Failure.PLAN: "the worker has another plan",
        Failure.MALFORMED: "the worker did not understand what it was sent",
        Failure.DEVICE: "the worker failed to compute",
        Failure.MEMORY: "the worker has not enough memory",
        Failure.BUSY: "the worker serves somebody else",
    }
    for code in Failure:
        name, says = f"failure code {code.name.lower()}", (words[code],)
        for place, kinds, levels in (
            ("a welcome", only(Kind.WELCOME), (AHEAD,)),
            ("a ready", only(Kind.READY), (AHEAD, DEVICE)),
            ("an answer", ANSWERS, LEVELS),
        ):
            yield Case(f"{name} in place of {place}", kinds, failure(code), (DeviceError,), says, levels,
                       bulks=BOTH[code % 2 :][:1])  # fmt: skip
    for code in (0, 7, 2**32 - 1):
        yield Case(f"failure code {code}, which is unknown", ANSWERS, failure(code))


def orders() -> Iterator[Case]:
    """Right messages at wrong moments, and what comes along with one."""
    early = send(lambda said: said.whole + bytes_of_claim())
    yield Case("an answer before the ask", only(Kind.WELCOME), early)
    yield Case("an answer told twice", ANSWERS, send(lambda said: said.whole * 2))
    yield Case("a second answer told twice", ANSWERS, send(lambda said: said.whole * 2), place=1)
    yield Case("two answers in the other order", ANSWERS, hold, levels=(AHEAD, LAYERWISE, PRIVATE, BLINDED))
    for kind in (Kind.PONG, Kind.WELCOME, Kind.READY):
        yield Case(f"a {kind.name.lower()} that nobody asked for", ANSWERS, extra(kind))
    yield Case("a pong before the welcome", only(Kind.WELCOME), extra(Kind.PONG), levels=(AHEAD,))
    yield Case("a ready told twice", only(Kind.READY), send(lambda said: said.whole * 2))
    yield Case("a pong told twice", only(Kind.PONG), send(lambda said: said.whole * 2), levels=PINGED)
    for count, name in ((1, "a descriptor"), (2, "two descriptors"), (40, "forty descriptors")):
        for kinds, place in ((only(Kind.WELCOME), "a welcome"), (ANSWERS, "an answer")):
            levels = LEVELS if kinds is ANSWERS else (AHEAD,)
            yield Case(f"{name} along with {place}", kinds, with_descriptors(count), says=(DESCRIPTORS,),
                       levels=levels, bulks=(Bulk.MEMFD,))  # fmt: skip


def bytes_of_claim() -> bytes:
    """The first claim of a request that was not made yet."""
    return Header(Kind.CLAIM, 1, 1, 0, 0, 2, Element.INT32, 1152).encode()


def half_header(said: Said) -> bytes:
    return said.header[: HEADER_SIZE // 2]


def half_body(said: Said) -> bytes:
    return said.header + said.body[: len(said.body) // 2]


def nothing(said: Said) -> bytes:
    return b""


POINTS = {
    "a welcome": (only(Kind.WELCOME), (AHEAD, DEVICE)),
    "a ready": (only(Kind.READY), (AHEAD, DEVICE)),
    "an answer": (ANSWERS, LEVELS),
    "a pong": (only(Kind.PONG), PINGED),
}


def ends() -> Iterator[Case]:
    """The connection ends, at each point."""
    for point, (kinds, levels) in POINTS.items():
        for name, make in (("before", nothing), ("in the header of", half_header)):
            act = send_and_go(make)
            yield Case(f"gone {name} {point}", kinds, act, (DeviceError,), (GONE, CLOSED), levels)
        yield Case(f"gone after {point}", kinds, send_and_go(lambda said: said.whole), (DeviceError,), (GONE, CLOSED),
                   levels if point != "a pong" else PINGED)  # fmt: skip
    act = send_and_go(half_body)
    yield Case("gone in the body of a welcome", only(Kind.WELCOME), act, (DeviceError,), (CLOSED,), (AHEAD,))
    yield Case("gone in the body of an answer", ANSWERS, act, (DeviceError,), (CLOSED,), bulks=(Bulk.INLINE,))


def waits() -> Iterator[Case]:
    """Silence at each point, and worse: a byte now and then. Whichever bound is reached first is what is said."""
    both = (WireError, DeviceError)
    for point, (kinds, levels) in POINTS.items():
        for name, act, error, says in (
            ("silent before", send_and_rest(nothing), (DeviceError,), (LATE,)),
            ("silent in the header of", send_and_rest(half_header), both, (LATE, HALF)),
            ("one byte every 50 ms of", dribble(lambda said: said.header), both, (LATE, HALF)),
        ):
            yield Case(f"{name} {point}", kinds, act, error, says, levels, (Bulk.MEMFD,), SHORT)
    act = send_and_rest(half_body)
    for point, kinds in (("a welcome", only(Kind.WELCOME)), ("an answer", ANSWERS)):
        levels = LEVELS if kinds is ANSWERS else (AHEAD,)
        yield Case(f"silent in the body of {point}", kinds, act, both, (LATE, HALF), levels, (Bulk.INLINE,), SHORT)
    yield Case("an answer after the last moment", ANSWERS, late, (DeviceError,), (LATE,), LEVELS, BOTH, SHORT)


def late(channel: Hostile, said: Said) -> None:
    """The answer, once nobody waits for it any more."""
    channel.rest_until_alone()
    channel.say(said.whole)
