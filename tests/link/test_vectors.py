"""The vectors are what the generator writes, are read and written both ways, and are those that the document shows."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from slalom.errors import WireError
from slalom.link.message import (
    ERRAND_SIZE,
    HEADER_SIZE,
    NO_SLOT,
    VERSION,
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
    decode_errands,
    decode_header,
    decode_hello,
    decode_region,
    decode_span,
    decode_welcome,
    encode_errands,
    encode_span,
)
from tests.link.make_vectors import words, write_vectors

FILE = Path(__file__).with_name("vectors.json")
DOCUMENT = (Path(__file__).parents[2] / "docs" / "protocol.md").read_text("utf-8")
VECTORS: dict[str, Any] = json.loads(FILE.read_text("utf-8"))
MESSAGES = {message["name"]: message for message in VECTORS["messages"]}
REFUSED = {message["name"]: message for message in VECTORS["refused"]}
DECODERS: dict[str, Callable[[bytes], object]] = {
    "header": decode_header,
    "hello": decode_hello,
    "welcome": decode_welcome,
    "region": decode_region,
    "errands": decode_errands,
    "span": decode_span,
}
ASKS = (Kind.COMPUTE, Kind.RUN, Kind.RUN_AHEAD, Kind.GRANT)


def test_file_is_what_the_generator_writes() -> None:
    assert FILE.read_text("utf-8") == write_vectors()
    assert VECTORS["version"] == VERSION


def header_of(fields: dict[str, Any]) -> Header:
    return Header(**{**fields, "kind": Kind[fields["kind"]], "element": Element[fields["element"]]})


def body_of(header: Header, said: dict[str, Any] | None) -> bytes:
    """The bytes of a body from what it says."""
    if said is None:
        return b""
    if header.kind is Kind.HELLO:
        return Hello(bytes.fromhex(said["digest"]), Bulk[said["bulk"]]).encode()
    if header.kind is Kind.WELCOME:
        accelerator = Accelerator[said["accelerator"]]
        digest, rest = bytes.fromhex(said["digest"]), (said["threads"], said["streams"])
        return Welcome(digest, said["isolation"], accelerator, *rest).encode()
    if header.kind is Kind.REGION:
        numbers = [said[field.name] for field in fields(Geometry)]
        return Geometry(*numbers).encode(said["name"].encode())
    listed = [Errand(one["step"], one["slot"], Element[one["element"]], one["span"]) for one in said.get("errands", [])]
    if "span" in said:
        return encode_errands(listed) + encode_span(said["span"])
    if "seed" in said:
        return encode_errands(listed) + bytes.fromhex(said["seed"])
    return encode_errands(listed) + words(said["words"], 3 if header.element is Element.INT24 else 4)


def said_by(header: Header, raw: bytes) -> dict[str, Any] | None:
    """What the bytes of a body say."""
    if not raw:
        return None
    if header.kind is Kind.HELLO:
        hello = decode_hello(raw)
        return {"digest": hello.digest.hex(), "bulk": hello.bulk.name}
    if header.kind is Kind.WELCOME:
        it = decode_welcome(raw)
        return {"digest": it.digest.hex(), "isolation": it.isolation, "accelerator": it.accelerator.name,
                "threads": it.threads, "streams": it.streams}  # fmt: skip
    if header.kind is Kind.REGION:
        geometry, name = decode_region(raw)
        return {**vars(geometry), "name": name.decode()}
    count = {Kind.GRANT: 1, Kind.CLAIM: 0}.get(header.kind, header.step)
    end = ERRAND_SIZE * count
    listed = [{**vars(one), "element": one.element.name} for one in decode_errands(raw[:end])]
    if header.kind is Kind.DEAL:
        return {"errands": listed, "words": [], "seed": raw[end:].hex()}
    if header.kind is Kind.COMPUTE and header.slot == NO_SLOT:
        return {"errands": listed, "words": [], "span": decode_span(raw[end:])}
    size = 3 if header.element is Element.INT24 else 4
    numbers = [int.from_bytes(raw[at : at + size], "little", signed=True) for at in range(end, len(raw), size)]
    return {"errands": listed, "words": numbers} if count else {"words": numbers}


@pytest.mark.parametrize("name", MESSAGES)
def test_messages_are_written_as_in_the_file(name: str) -> None:
    header = header_of(MESSAGES[name]["header"])
    assert (header.encode() + body_of(header, MESSAGES[name]["body"])).hex() == MESSAGES[name]["hex"]


@pytest.mark.parametrize("name", MESSAGES)
def test_messages_are_read_as_in_the_file(name: str) -> None:
    raw = bytes.fromhex(MESSAGES[name]["hex"])
    header = decode_header(raw[:HEADER_SIZE])
    assert header == header_of(MESSAGES[name]["header"])
    assert said_by(header, raw[HEADER_SIZE:]) == MESSAGES[name]["body"]


@pytest.mark.parametrize("name", REFUSED)
def test_refused_bytes_are_refused(name: str) -> None:
    with pytest.raises(WireError):
        DECODERS[REFUSED[name]["decoder"]](bytes.fromhex(REFUSED[name]["hex"]))


def test_every_kind_and_code_has_a_vector() -> None:
    assert {message["header"]["kind"] for message in MESSAGES.values()} == {kind.name for kind in Kind}
    assert {f"failure {code.name.lower()}" for code in Failure} <= MESSAGES.keys()
    assert {message["decoder"] for message in REFUSED.values()} == DECODERS.keys()


def test_the_document_shows_these_vectors() -> None:
    shown = dict(re.findall(r"^```text\n([a-z ]+)\n([0-9a-f\s]+)```$", DOCUMENT, re.MULTILINE))
    assert len(shown) >= 6
    for name, text in shown.items():
        assert "".join(text.split()) == MESSAGES[name]["hex"], name


def test_the_document_names_every_kind_code_and_type() -> None:
    for member in (*Kind, *Element, *Bulk, *Failure, *Accelerator):
        assert re.search(rf"\| {member.value} \| `{member.name}` \|", DOCUMENT), member
