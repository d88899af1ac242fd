"""A file that is not exactly a plan file is refused by name, whatever is wrong with it, and costs no memory."""

from __future__ import annotations

import json
import struct
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from slalom.errors import ModelError
from slalom.plan import Plan
from slalom.plan.container import MAXIMUM_HEADER_SIZE
from tests.devices import plan_of
from tests.plan.plan_files import content_of, put_together, take_apart, tiny_plan

CONTENT = content_of(tiny_plan())
HEADER, DATA = take_apart(CONTENT)
HEADER_END = len(CONTENT) - len(DATA)
HUGE = 2**39


def refuse(content: bytes, pattern: str, path: Path | None = None) -> None:
    """From memory, and from a file."""
    with pytest.raises(ModelError, match=pattern):
        Plan.from_bytes(content)
    if path is not None:
        path.write_bytes(content)
        with pytest.raises(ModelError, match=pattern):
            Plan.load(path)


def test_every_truncation_is_refused(tmp_path: Path) -> None:
    for length in range(len(CONTENT)):
        with pytest.raises(ModelError):
            Plan.from_bytes(CONTENT[:length])
    for length in (0, 1, 7, 8, 9, HEADER_END - 1, HEADER_END, HEADER_END + 1, len(CONTENT) - 1):
        refuse(CONTENT[:length], "truncated|do not lie", tmp_path / "x")


def test_every_truncation_of_a_large_plan_is_refused() -> None:
    content = content_of(plan_of("every_step"))
    for length in range(0, len(content), 977):
        with pytest.raises(ModelError):
            Plan.from_bytes(content[:length])


@pytest.mark.parametrize("tail", [b"\0", b" ", b"x" * 4096, CONTENT])
def test_trailing_bytes(tail: bytes, tmp_path: Path) -> None:
    refuse(CONTENT + tail, f"holds {len(tail)} bytes that no tensor names", tmp_path / "x")


@pytest.mark.parametrize("size", [len(CONTENT) - 7, MAXIMUM_HEADER_SIZE + 1, 2**32, 2**63 - 1, 2**63, 2**64 - 1])
def test_header_longer_than_the_file_allows(size: int, tmp_path: Path) -> None:
    refuse(struct.pack("<Q", size) + CONTENT[8:], "longer than the file allows", tmp_path / "x")


def test_header_above_the_limit_is_refused_although_the_file_is_long(tmp_path: Path) -> None:
    path = tmp_path / "x"
    with path.open("wb") as file:
        file.write(struct.pack("<Q", MAXIMUM_HEADER_SIZE + 1))
        file.truncate(MAXIMUM_HEADER_SIZE + 1024)
    with pytest.raises(ModelError, match="longer than the file allows"):
        Plan.load(path)


@pytest.mark.parametrize(
    ("raw", "pattern"),
    [
        (b"", "readable JSON"),
        (b"{", "readable JSON"),
        (b"\xff\xfe{}", "readable JSON"),
        (b'{"a":1,"a":2}', "readable JSON"),
        (b'{"__metadata__":{"manifest":"x","manifest":"y"}}', "readable JSON"),
        (b"[" * 100_000, "readable JSON"),
        (b'{"a":' * 100_000, "readable JSON"),
        (b'{"a":' + b"9" * 5000 + b"}", "readable JSON"),
        (b"[]", "not an object"),
        (b"null", "not an object"),
        (b'"text"', "not an object"),
        (b"{}", "no manifest"),
        (b'{"__metadata__":[]}', "no manifest"),
        (b'{"__metadata__":{"manifest":1,"digest":"x"}}', "no manifest"),
        (b'{"__metadata__":{}}', "not a slalom plan"),
        (b'{"__metadata__":{"format":"pt"}}', "not a slalom plan"),
        (b'{"__metadata__":{"manifest":"x","digest":"y","more":"z"}}', "not a slalom plan"),
    ],
)
def test_headers_that_are_none(raw: bytes, pattern: str, tmp_path: Path) -> None:
    refuse(put_together(raw, b""), pattern, tmp_path / "x")


def entry(**changes: Any) -> Callable[[], dict[str, Any]]:
    """The header with tensor w's entry changed."""

    def make() -> dict[str, Any]:
        header = json.loads(json.dumps(HEADER))
        header["w"] = {**header["w"], **changes}
        return dict(header)

    return make


def test_the_tensor_of_these_tests_is_last_in_the_file() -> None:
    assert HEADER["w"] == {"dtype": "I8", "shape": [2, 2, 1, 1], "data_offsets": [8, 12]}


@pytest.mark.parametrize(
    ("changes", "pattern"),
    [
        ({"data_offsets": [7, 11]}, "'w': its bytes do not lie"),  # overlaps
        ({"data_offsets": [9, 13]}, "'w': its bytes do not lie"),  # a hole
        ({"data_offsets": [8, 11]}, "'w': its bytes do not lie"),
        ({"data_offsets": [8, 13]}, "'w': its bytes do not lie"),
        ({"data_offsets": [12, 8]}, "'w': its bytes do not lie"),
        ({"data_offsets": [-4, 0]}, "'w': its shape or offsets"),
        ({"data_offsets": [8]}, "'w': its shape or offsets"),
        ({"data_offsets": [8, 12, 16]}, "'w': its shape or offsets"),
        ({"data_offsets": [8.0, 12.0]}, "'w': its shape or offsets"),
        ({"data_offsets": ["8", "12"]}, "'w': its shape or offsets"),
        ({"data_offsets": None}, "'w': its shape or offsets"),
        ({"data_offsets": [8, 2**63]}, "'w': its shape or offsets"),
        ({"shape": [2, 2, 1, 2]}, "'w': its bytes do not lie"),
        ({"shape": [2, 2, 1]}, "digest"),
        ({"shape": [2, 2, True, True]}, "'w': its shape or offsets"),
        ({"shape": [-2, -2, 1, 1]}, "'w': its shape or offsets"),
        ({"shape": [2.0, 2, 1, 1]}, "'w': its shape or offsets"),
        ({"shape": "2211"}, "'w': its shape or offsets"),
        ({"shape": [1] * 9}, "'w': its shape or offsets"),
        ({"shape": [2**40, 1]}, "'w': its shape or offsets"),
        ({"shape": [HUGE, HUGE]}, "'w': its bytes do not lie"),
        ({"shape": [float("nan")]}, "'w': its shape or offsets"),
        ({"shape": [HUGE, HUGE, 0], "data_offsets": [8, 8]}, "'w': its shape or offsets"),
        ({"dtype": "F32"}, "'w': its bytes do not lie"),
        ({"dtype": "i8"}, "'w': its type"),
        ({"dtype": "U8"}, "'w': its type"),
        ({"dtype": "F64"}, "'w': its type"),
        ({"dtype": "object"}, "'w': its type"),
        ({"dtype": None}, "'w': its type"),
        ({"dtype": ["I8"]}, "'w': its type"),
        ({"more": 1}, "'w': unknown or missing"),
    ],
)
def test_entries_that_are_wrong(changes: dict[str, Any], pattern: str, tmp_path: Path) -> None:
    refuse(put_together(entry(**changes)(), DATA), pattern, tmp_path / "x")


@pytest.mark.parametrize("value", [None, 1, [], "x", {}, {"dtype": "I8", "shape": [4]}])
def test_entries_that_are_none(value: Any, tmp_path: Path) -> None:
    refuse(put_together({**HEADER, "w": value}, DATA), "'w': unknown or missing", tmp_path / "x")


def test_an_empty_tensor_of_impossible_shape(tmp_path: Path) -> None:
    """Its byte count is 0, whatever the other extents say."""
    extra = {"dtype": "I8", "shape": [0, *[HUGE] * 7], "data_offsets": [12, 12]}
    refuse(put_together({**HEADER, "z": extra}, DATA), "'z': its shape or offsets", tmp_path / "x")


def test_entries_out_of_order(tmp_path: Path) -> None:
    header = {"__metadata__": HEADER["__metadata__"], **{name: HEADER[name] for name in ("w", "m", "b")}}
    refuse(put_together(header, DATA), "'w': its bytes do not lie", tmp_path / "x")


@pytest.mark.parametrize("place", range(len(DATA)))
def test_a_damaged_tensor_byte(place: int, tmp_path: Path) -> None:
    data = bytearray(DATA)
    data[place] ^= 1
    refuse(CONTENT[:HEADER_END] + data, "digest|not finite|-128", tmp_path / "x")


@pytest.mark.parametrize("key", ["manifest", "digest"])
def test_a_damaged_manifest_or_digest(key: str) -> None:
    for place in range(len(HEADER["__metadata__"][key])):
        text = HEADER["__metadata__"][key]
        changed = chr(ord(text[place]) ^ 1)
        header = {**HEADER, "__metadata__": {**HEADER["__metadata__"], key: text[:place] + changed + text[place + 1 :]}}
        refuse(put_together(header, DATA), "digest|JSON|graph|plan")


@pytest.mark.parametrize(
    "name", ["", "ä", "a b", "a\n", "\x1b[31m", "\ud800", "x" * 201, "../" + "x" * 200, "__metadata__ ", "\u202e"]
)
def test_names_of_tensors(name: str, tmp_path: Path) -> None:
    header = {key: value for key, value in HEADER.items() if key != "w"} | {name: HEADER["w"]}
    refuse(put_together(header, DATA), "tensor name .* is not letters", tmp_path / "x")


def test_messages_are_one_short_line() -> None:
    header = {key: value for key, value in HEADER.items() if key != "w"} | {"\n" * 10_000: HEADER["w"]}
    with pytest.raises(ModelError) as raised:
        Plan.from_bytes(put_together(header, DATA))
    assert len(str(raised.value)) < 300
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("shape", [[HUGE], [2**20, 2**19], [HUGE, HUGE, HUGE]])
@pytest.mark.parametrize("dtype", ["I8", "F32"])
def test_nothing_is_allocated_for_what_a_header_says(shape: list[int], dtype: str, tmp_path: Path) -> None:
    count = 1
    for extent in shape:
        count *= extent
    changes = {"shape": shape, "dtype": dtype, "data_offsets": [8, min(8 + count, 2**40 - 1)]}
    content = put_together(entry(**changes)(), DATA)
    (tmp_path / "x").write_bytes(content)
    tracemalloc.start()
    try:
        refuse(content, "do not lie")
        with pytest.raises(ModelError):
            Plan.load(tmp_path / "x")
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


def test_reading_a_plan_needs_a_small_multiple_of_its_file(tmp_path: Path) -> None:
    path = tmp_path / "x"
    plan_of("every_step").save(path)
    Plan.load(path)  # once before, for what is imported and cached
    tracemalloc.start()
    try:
        Plan.load(path)
        # the manifest's objects are larger than its text; tensors are read once
        assert tracemalloc.get_traced_memory()[1] < 20 * path.stat().st_size
    finally:
        tracemalloc.stop()
