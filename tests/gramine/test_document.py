"""Whatever a path holds, it stays a path."""

from __future__ import annotations

import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slalom.errors import ModelError
from slalom.gramine import encode_manifest
from tests.gramine.enclaves import SOUND


def test_it_reads_back() -> None:
    assert tomllib.loads(encode_manifest(SOUND)) == SOUND


HOSTILE = [
    'a"b',
    'x" }\n[sgx]\ndebug = true\n#',
    "\\",
    "\\u0022",
    "\r\n",
    "\x00",
    "\x7f",
    "'''",
    "\u2028",
    "😀",
    "a\tb",
]


@pytest.mark.parametrize("name", HOSTILE)
def test_a_name_does_not_break_out(name: str) -> None:
    document = {"fs": {"mounts": [{"path": name}]}, "sgx": {"debug": False, name: name}}
    text = encode_manifest(document)
    assert tomllib.loads(text) == document
    assert text.count("\n[") == 2


@given(st.text(st.characters(exclude_categories=["Cs"])).filter(lambda text: "{" not in text))
def test_any_text(name: str) -> None:
    document = {"sgx": {"uri": name, "list": [name, {"uri": name}]}}
    assert tomllib.loads(encode_manifest(document)) == document


@pytest.mark.parametrize("name", ["{{ env.HOME }}", "{% raw %}", "{# x", "\udcff"])
def test_what_would_not_stay_a_path_is_refused(name: str) -> None:
    with pytest.raises(ModelError, match=r"reads as a template|UTF-8"):
        encode_manifest({"sgx": {"uri": name}})


@pytest.mark.parametrize("value", [None, 1.5, b"x", object()])
def test_no_other_types(value: object) -> None:
    with pytest.raises(ModelError, match="a manifest holds no"):
        encode_manifest({"sgx": {"x": value}})
