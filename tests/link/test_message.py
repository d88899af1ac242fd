"""Messages: what is encoded is decoded, and everything that is not exactly a message is refused."""

from __future__ import annotations

import struct
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slalom.errors import WireError
from slalom.link.message import (
    DIGEST_SIZE,
    ERRAND_SIZE,
    HEADER_SIZE,
    HELLO_SIZE,
    ISOLATION_LIMIT,
    MAGIC,
    MAXIMUM_SLOTS,
    NAME_SIZE,
    NO_SLOT,
    REGION_SIZE,
    SLOT_ALIGNMENT,
    VERSION,
    WELCOME_SIZE,
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
    decode_span,
    decode_welcome,
    encode_errands,
    encode_span,
    require_version,
)

u32, u64 = st.integers(0, 2**32 - 1), st.integers(0, 2**64 - 1)
digests = st.binary(min_size=DIGEST_SIZE, max_size=DIGEST_SIZE)
headers = st.builds(
    Header,
    st.sampled_from(Kind),
    u64,
    request=u64,
    step=u32,
    slot=u32,
    batch=u32,
    element=st.sampled_from(Element),
    size=u64,
)
hellos = st.builds(Hello, digests, st.sampled_from(Bulk))
welcomes = st.builds(
    Welcome, digests, st.integers(0, ISOLATION_LIMIT - 1), st.sampled_from(Accelerator), u32, st.booleans()
)
counts, pages = st.integers(1, MAXIMUM_SLOTS), st.integers(1, 2**16).map(lambda count: count * SLOT_ALIGNMENT)
powers = st.integers(0, 16).map(lambda power: 2**power)
rings = st.just((0, 0)) | st.tuples(powers, pages)
rings |= st.tuples(powers, pages, powers).filter(lambda ring: ring[2] <= ring[0])
geometries = st.builds(
    lambda asks, claims, ask_size, claim_size, ring: Geometry(asks, claims, ask_size, claim_size, *ring),
    counts, counts, pages, pages, rings,
)  # fmt: skip
names = st.binary(max_size=NAME_SIZE).filter(lambda name: not name.endswith(b"\0"))
placed = st.builds(Errand, u32, u32, st.sampled_from(Element))
streamed = st.builds(Errand, u32, st.just(NO_SLOT), st.sampled_from(Element), u32)
errands = st.lists(placed | streamed, max_size=9)

HEADER = Header(Kind.CLAIM, 7, request=3, step=2, slot=5, batch=4, element=Element.INT32, size=4096)
GEOMETRY = Geometry(3, 14, 4096, 8192)


def changed(raw: bytes, offset: int, form: str, value: int | bytes) -> bytes:
    """A message with one field overwritten."""
    copy = bytearray(raw)
    struct.pack_into(form, copy, offset, value)
    return bytes(copy)


def test_sizes_are_the_protocol_s() -> None:
    sizes = (HEADER_SIZE, HELLO_SIZE, WELCOME_SIZE, REGION_SIZE, ERRAND_SIZE)
    assert sizes == (48, 40, 48, 104, 16)


@given(headers)
def test_headers_come_back(header: Header) -> None:
    raw = header.encode()
    assert len(raw) == HEADER_SIZE
    assert raw.startswith(MAGIC + VERSION.to_bytes(2, "little"))
    assert decode_header(raw) == header


@given(headers, headers)
def test_two_headers_are_equal_where_their_bytes_are(one: Header, other: Header) -> None:
    assert (one == other) == (one.encode() == other.encode())


@given(st.binary(min_size=HEADER_SIZE, max_size=HEADER_SIZE))
def test_what_is_decoded_encodes_to_the_same_bytes(raw: bytes) -> None:
    raw = MAGIC + VERSION.to_bytes(2, "little") + raw[6:]
    try:
        header = decode_header(raw)
    except WireError:
        return
    assert header.encode() == raw


@pytest.mark.parametrize("field", ["sequence", "request", "step", "slot", "batch", "size"])
@pytest.mark.parametrize("value", [-1, 2**64])
def test_numbers_without_room_are_refused(field: str, value: int) -> None:
    numbers = {"sequence": 0, field: value}
    with pytest.raises(WireError, match="does not fit"):
        Header(Kind.PING, **numbers).encode()


@pytest.mark.parametrize("size", [0, 1, 47, 49, 96])
def test_headers_of_another_size_are_refused(size: int) -> None:
    with pytest.raises(WireError, match="cut short"):
        decode_header((HEADER.encode() * 2)[:size])


@pytest.mark.parametrize("kind", [0, 9, 63, 70, 65535])
def test_unknown_kinds_are_refused(kind: int) -> None:
    with pytest.raises(WireError, match="does not have"):
        decode_header(changed(HEADER.encode(), 6, "<H", kind))


@pytest.mark.parametrize("element", [6, 255, 2**32 - 1])
def test_unknown_types_are_refused(element: int) -> None:
    with pytest.raises(WireError, match="does not have"):
        decode_header(changed(HEADER.encode(), 36, "<I", element))


@pytest.mark.parametrize("magic", [b"SLLN", b"sllm", b"\0\0\0\0", b"HTTP"])
def test_another_protocol_is_told_by_its_magic(magic: bytes) -> None:
    with pytest.raises(WireError, match="does not speak this protocol") as caught:
        decode_header(changed(HEADER.encode(), 0, "<4s", magic))
    assert caught.value.hint


@pytest.mark.parametrize("version", [0, 1, 3, 5, 2**16 - 1])
def test_another_version_is_told_by_both_numbers(version: int) -> None:
    raw = changed(HEADER.encode(), 4, "<H", version)
    with pytest.raises(WireError, match=f"version {version} .* version {VERSION}"):
        require_version(raw)
    with pytest.raises(WireError, match=f"version {version} .* version {VERSION}"):
        decode_header(raw)


@given(hellos)
def test_hellos_come_back(hello: Hello) -> None:
    assert decode_hello(hello.encode()) == hello


@given(welcomes)
def test_welcomes_come_back(welcome: Welcome) -> None:
    assert decode_welcome(welcome.encode()) == welcome


@given(geometries, names)
def test_regions_come_back(geometry: Geometry, name: bytes) -> None:
    if geometry.size < 2**48:
        assert decode_region(geometry.encode(name)) == (geometry, name)


@given(errands)
def test_errands_come_back(listed: list[Errand]) -> None:
    assert decode_errands(encode_errands(listed)) == tuple(listed)


HELLO = Hello(bytes(32), Bulk.MEMFD).encode()
WELCOME = Welcome(bytes(32), 0, Accelerator.CPU, 1).encode()
REGION = GEOMETRY.encode(b"slalom-x")
RING = replace(GEOMETRY, piece_count=4, piece_size=4096).encode(b"")


@given(st.integers(1, 2**32 - 1))
def test_spans_come_back(span: int) -> None:
    assert decode_span(encode_span(span)) == span


@pytest.mark.parametrize(
    ("decode", "raw"),
    [
        (decode_hello, HELLO[:-1]),
        (decode_hello, HELLO + b"\0"),
        (decode_hello, changed(HELLO, 32, "<I", 0)),
        (decode_hello, changed(HELLO, 32, "<I", 4)),
        (decode_hello, changed(HELLO, 36, "<I", 1)),
        (decode_welcome, WELCOME[:-1]),
        (decode_welcome, WELCOME + b"\0"),
        (decode_welcome, changed(WELCOME, 32, "<I", ISOLATION_LIMIT)),
        (decode_welcome, changed(WELCOME, 36, "<I", 0)),
        (decode_welcome, changed(WELCOME, 36, "<I", 3)),
        (decode_welcome, changed(WELCOME, 44, "<I", 2)),
        (decode_region, REGION[:-1]),
        (decode_region, REGION + b"\0"),
        (decode_region, changed(REGION, 0, "<I", 0)),
        (decode_region, changed(REGION, 0, "<I", MAXIMUM_SLOTS + 1)),
        (decode_region, changed(REGION, 4, "<I", 0)),
        (decode_region, changed(REGION, 4, "<I", 2**32 - 1)),
        (decode_region, changed(REGION, 12, "<I", 1)),  # a ring of words and none of claims
        (decode_region, changed(RING, 12, "<I", 8)),  # a larger one
        (decode_region, changed(RING, 12, "<I", 3)),
        (decode_span, encode_span(0)),
        (decode_span, encode_span(7)[:-1]),
        (decode_span, encode_span(7) + b"\0"),
        (decode_region, changed(REGION, 16, "<Q", 0)),
        (decode_region, changed(REGION, 16, "<Q", 4097)),
        (decode_region, changed(REGION, 16, "<Q", 2**48)),
        (decode_region, changed(REGION, 24, "<Q", 0)),
        (decode_region, changed(REGION, 24, "<Q", 2**64 - 4096)),
        (decode_region, changed(REGION, 8, "<I", 4)),  # places of no size
        (decode_region, changed(REGION, 32, "<Q", 4096)),  # a size of no places
        (decode_region, changed(RING, 8, "<I", 3)),
        (decode_region, changed(RING, 8, "<I", 2 * MAXIMUM_SLOTS)),
        (decode_region, changed(RING, 32, "<Q", 4097)),
        (decode_region, changed(RING, 32, "<Q", 2**46)),
        (decode_errands, encode_errands([Errand(0, 0, Element.INT32)])[:-1]),
        (decode_errands, struct.pack("<IIII", 0, 0, 6, 0)),
        (decode_errands, struct.pack("<IIII", 0, 0, Element.INT32, 16)),  # a slot and pieces
    ],
)
def test_bodies_that_are_not_exactly_right_are_refused(decode: object, raw: bytes) -> None:
    with pytest.raises(WireError):
        decode(raw)  # type: ignore[operator]


def test_kinds_say_which_side_they_come_from() -> None:
    of_device = {Kind.WELCOME, Kind.READY, Kind.CLAIM, Kind.OUTPUT, Kind.PONG, Kind.FAILURE}
    assert {kind for kind in Kind if kind >= 64} == of_device
