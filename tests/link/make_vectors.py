"""Regenerates `vectors.json`: messages of the protocol as bytes, with what they say; and bytes that are refused.

Run as `python -m tests.link.make_vectors > tests/link/vectors.json`. The numbers are chosen by hand here.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from typing import Any

from slalom.arithmetic.keystream import SEED_SIZE
from slalom.link.message import (
    HELLO_SIZE,
    NO_SLOT,
    REGION_SIZE,
    VERSION,
    WELCOME_SIZE,
    Accelerator,
    Bulk,
    Element,
    Errand,
    Failure,
    Geometry,
    Header,
    Hello,
    Kind,
    Welcome,
    encode_errands,
    encode_span,
)

DIGEST = bytes(range(32))
WORDS = (1, -1, 2**31 - 1, -(2**31))  # what an ask or a claim of two items of two words holds
HELLO = Hello(DIGEST, Bulk.MEMFD)
WELCOME = Welcome(DIGEST, 0x063F, Accelerator.CPU, 8)
GEOMETRY = Geometry(3, 14, 4096, 8192)
STREAMING = replace(WELCOME, accelerator=Accelerator.CUDA, streams=True)
WITH_RING = Geometry(3, 14, 4096, 8192, 4, 65536)
WITH_RINGS = Geometry(3, 14, 4096, 8192, 8, 65536, 4)


def words(numbers: Sequence[int], size: int = 4) -> bytes:
    """Integers mod 2^32 as bytes; three bytes of each where they are packed."""
    return b"".join((number % 2**32).to_bytes(4, "little")[:size] for number in numbers)


def message(name: str, header: Header, body: Any = None, raw: bytes = b"") -> dict[str, Any]:
    """One message: the fields of its header, what its body says, and all its bytes."""
    fields = {key: value.name if key in ("kind", "element") else value for key, value in asdict(header).items()}
    return {"name": name, "header": fields, "body": body, "hex": (header.encode() + raw).hex()}


def errand_body(errands: list[Errand], given: Sequence[int] = ()) -> dict[str, Any]:
    """What the body of an ask says."""
    listed = [{**asdict(one), "element": one.element.name} for one in errands]
    return {"errands": listed, "words": list(given)}


def make_messages() -> list[dict[str, Any]]:
    """A conversation of two items, two words each: first with shared memory, then with bytes behind headers."""
    hello = {"digest": DIGEST.hex(), "bulk": HELLO.bulk.name}
    welcome = {**asdict(WELCOME), "digest": DIGEST.hex(), "accelerator": WELCOME.accelerator.name}
    streaming = {**asdict(STREAMING), "digest": DIGEST.hex(), "accelerator": STREAMING.accelerator.name}
    region = {**asdict(GEOMETRY), "name": ""}
    shared = [Errand(0, 0, Element.INT32), Errand(2, 1, Element.INT32)]
    pieces = [Errand(2, NO_SLOT, Element.INT32, 2)]
    packed, output = [Errand(0, 0, Element.INT24)], [Errand(0, 0, Element.FLOAT32)]
    ask = Header(Kind.COMPUTE, 2, 1, 2, 0, 2, Element.INT32, 16)
    run = Header(Kind.RUN, 6, 4, 1, 0, 2, Element.INT16, 8)
    ahead = Header(Kind.RUN_AHEAD, 2, 1, 1, 0, 2, Element.INT16, 8)
    deal = replace(ask, kind=Kind.DEAL, size=SEED_SIZE)
    small = (5, -5, 7, -7)
    return [
        message("hello", Header(Kind.HELLO, 0, size=HELLO_SIZE), hello, HELLO.encode()),
        message("welcome", Header(Kind.WELCOME, 0, size=WELCOME_SIZE), welcome, WELCOME.encode()),
        message(
            "welcome of a device that streams",
            Header(Kind.WELCOME, 0, size=WELCOME_SIZE),
            streaming,
            STREAMING.encode(),
        ),
        message("region", Header(Kind.REGION, 1, batch=2, size=REGION_SIZE), region, GEOMETRY.encode(b"")),
        message(
            "region in a file",
            Header(Kind.REGION, 1, batch=2, size=REGION_SIZE),
            {**region, "name": "slalom-ab"},
            GEOMETRY.encode(b"slalom-ab"),
        ),
        message(
            "region with a ring",
            Header(Kind.REGION, 1, batch=2, size=REGION_SIZE),
            {**asdict(WITH_RING), "name": ""},
            WITH_RING.encode(b""),
        ),
        message(
            "region with two rings",
            Header(Kind.REGION, 1, batch=2, size=REGION_SIZE),
            {**asdict(WITH_RINGS), "name": ""},
            WITH_RINGS.encode(b""),
        ),
        message("ready", Header(Kind.READY, 1, batch=2)),
        message("compute", ask, errand_body(shared), encode_errands(shared)),
        message("first claim", Header(Kind.CLAIM, 2, 1, 0, 0, 2, Element.INT32, 16)),
        message("second claim", Header(Kind.CLAIM, 3, 1, 2, 1, 2, Element.INT32, 24)),
        message("run", run, errand_body(output), encode_errands(output)),
        message("output", Header(Kind.OUTPUT, 6, 4, 0, 0, 2, Element.FLOAT32, 8)),
        message("ping", Header(Kind.PING, 7)),
        message("pong", Header(Kind.PONG, 7)),
        message("compute inline", ask, errand_body(shared, WORDS), encode_errands(shared) + words(WORDS)),
        message(
            "claim inline", Header(Kind.CLAIM, 2, 1, 0, 0, 2, Element.INT32, 16), {"words": list(WORDS)}, words(WORDS)
        ),
        message("run ahead", ahead, errand_body(packed), encode_errands(packed)),
        message("grant", Header(Kind.GRANT, 3, 1), errand_body(shared[1:]), encode_errands(shared[1:])),
        message(
            "packed claim",
            Header(Kind.CLAIM, 2, 1, 0, 0, 2, Element.INT24, 12),
            {"words": list(small)},
            words(small, 3),
        ),
        message("deal", deal, {**errand_body(shared), "seed": DIGEST.hex()}, encode_errands(shared) + DIGEST),
        message("compute in pieces", replace(ask, step=1), errand_body(pieces), encode_errands(pieces)),
        message(
            "compute of words in pieces",
            replace(ask, step=1, slot=NO_SLOT),
            {**errand_body(pieces), "span": 2},
            encode_errands(pieces) + encode_span(2),
        ),
        message("last word of a claim in pieces", Header(Kind.CLAIM, 2, 1, 2, NO_SLOT, 2, Element.INT32, 24)),
        *(message(f"failure {code.name.lower()}", Header(Kind.FAILURE, 0, step=code)) for code in Failure),
        message(
            "largest numbers",
            Header(Kind.CLAIM, 2**64 - 1, 2**64 - 1, 2**32 - 1, 2**32 - 1, 2**32 - 1, Element.OTHER, 2**64 - 1),
        ),
    ]


def make_refused() -> list[dict[str, str]]:
    """Bytes that are refused, by what should read them."""
    header, hello, welcome = Header(Kind.PING, 0).encode(), HELLO.encode(), WELCOME.encode()
    region, errands = GEOMETRY.encode(b""), encode_errands([Errand(0, 0, Element.INT32)])

    def put(raw: bytes, offset: int, value: int, size: int = 4) -> bytes:
        return raw[:offset] + value.to_bytes(size, "little") + raw[offset + size :]

    made: list[tuple[str, str, bytes]] = [
        ("another magic", "header", b"SLLN" + header[4:]),
        ("another version", "header", put(header, 4, VERSION + 1, 2)),
        ("an unknown kind", "header", put(header, 6, 9, 2)),
        ("an unknown type", "header", put(header, 36, 6)),
        ("a header cut short", "header", header[:-1]),
        ("an unknown bulk", "hello", put(hello, 32, 4)),
        ("a reserved word in a hello", "hello", put(hello, 36, 1)),
        ("an unknown isolation bit", "welcome", put(welcome, 32, 2**16)),
        ("an unknown accelerator", "welcome", put(welcome, 36, 3)),
        ("a welcome that neither streams nor does not", "welcome", put(welcome, 44, 2)),
        ("no ask slots", "region", put(region, 0, 0)),
        ("too many claim slots", "region", put(region, 4, 2**16 + 1)),
        ("slots that are not aligned", "region", put(region, 16, 4100, 8)),
        ("a region of 2^48 bytes", "region", put(region, 24, 2**48, 8)),
        ("a ring of words without a ring of claims", "region", put(region, 12, 1)),
        ("a ring of words larger than that of claims", "region", put(WITH_RINGS.encode(b""), 12, 16)),
        ("a ring of words of three places", "region", put(WITH_RINGS.encode(b""), 12, 3)),
        ("a ring of three places", "region", put(WITH_RING.encode(b""), 8, 3)),
        ("a ring of places without a size", "region", put(region, 8, 4)),
        ("errands cut short", "errands", errands[:-1]),
        ("an errand of an unknown type", "errands", put(errands, 8, 6)),
        ("an errand with a slot and pieces", "errands", put(errands, 12, 16)),
        ("words in pieces of no size", "span", encode_span(0)),
        ("a span cut short", "span", encode_span(1)[:-1]),
    ]
    return [{"name": name, "decoder": decoder, "hex": raw.hex()} for name, decoder, raw in made]


def write_vectors(make: Callable[[], list[dict[str, Any]]] = make_messages) -> str:
    """The text of `vectors.json`."""
    found = {"version": VERSION, "messages": make(), "refused": make_refused()}
    return json.dumps(found, indent=1) + "\n"


if __name__ == "__main__":
    sys.stdout.write(write_vectors())
