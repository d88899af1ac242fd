"""A comparison and its JSON document say the same, and another document is refused."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from slalom.bench.comparison import comparison_document, decode_comparison
from slalom.bench.provenance import UNKNOWN, find_commit
from slalom.errors import InputError
from tests.comparisons import comparison


def test_there_and_back() -> None:
    document = json.loads(json.dumps(comparison_document(comparison())))
    assert decode_comparison(document) == comparison()
    assert document["rows"][-1]["standing"]["over_in_tee"] == 2.0


@pytest.mark.parametrize(
    "path", [("rows",), ("provenance",), ("limits", "memory"), ("rows", 0, "rate"), ("timelines",)]
)
@pytest.mark.parametrize("value", [None, 7, ["a"], {"a": 1}])
def test_another_document_is_refused(path: tuple[str | int, ...], value: Any) -> None:
    document = json.loads(json.dumps(comparison_document(comparison())))
    place = document
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = copy.copy(value)
    with pytest.raises(InputError):
        decode_comparison(document)


@pytest.mark.parametrize("document", [None, [], "a", {}, {"rows": []}])
def test_what_is_no_document_is_refused(document: Any) -> None:
    with pytest.raises(InputError):
        decode_comparison(document)


def test_outside_a_checkout_the_commit_is_unknown(tmp_path: Path) -> None:
    assert find_commit(tmp_path) == UNKNOWN
