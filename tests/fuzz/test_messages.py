"""Every decoder of the link: whatever bytes come, a WireError or a value that encodes to the same bytes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from slalom.link.answers import refusal
from slalom.link.message import (
    Accelerator,
    Bulk,
    Element,
    Errand,
    Geometry,
    Header,
    Hello,
    Kind,
    Welcome,
    decode_errands,
    decode_header,
    decode_hello,
    decode_region,
    decode_welcome,
    encode_errands,
)
from tests.fuzz.fuzzing import Budget, fuzz, number_words
from tests.mutation import mutate

DECODERS: dict[str, tuple[bytes, Callable[[bytes], Any], Callable[[Any], bytes]]] = {
    "header": (Header(Kind.CLAIM, 5, 3, 1, 2, 4, Element.INT32, 64).encode(), decode_header, lambda it: it.encode()),
    "hello": (Hello(bytes(range(32)), Bulk.SHM).encode(), decode_hello, lambda it: it.encode()),
    "welcome": (Welcome(bytes(32), 0xFFFF, Accelerator.CPU, 8).encode(), decode_welcome, lambda it: it.encode()),
    "region": (Geometry(3, 9, 4096, 8192).encode(b"slalom-x"), decode_region, lambda it: it[0].encode(it[1])),
    "errands": (
        encode_errands([Errand(step, 7 - step, Element.INT24) for step in range(4)]),
        decode_errands,
        encode_errands,
    ),
}


def attempt(random: np.random.Generator) -> str:
    name = list(DECODERS)[int(random.integers(len(DECODERS)))]
    right, decode, encode = DECODERS[name]
    raw = mutate(right, random, number_words(random)) if random.integers(10) else random.bytes(len(right))
    if name == "header" and len(raw) == len(right):
        assert len(str(refusal(raw))) < 200
    assert encode(decode(raw)) == raw
    return f"{name} decoded"


def test_bytes_are_decoded_exactly_or_refused(fuzz_seconds: float) -> None:
    outcomes = fuzz(attempt, Budget(fuzz_seconds, 64 * 2**20))
    assert outcomes.total() > 200 * fuzz_seconds
    assert len(outcomes) > 12
    assert all(outcomes[f"{name} decoded"] for name in DECODERS)
