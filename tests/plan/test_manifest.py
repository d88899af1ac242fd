"""A manifest is read strictly: every field, of its very type, and nothing else. Digests here are right."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any

import pytest

from slalom.errors import ModelError
from slalom.plan import Plan
from slalom.plan.manifest import decode_graph, encode_graph
from tests.devices import plan_of
from tests.plan.plan_files import canonical, sealed, tiny_plan

PLAN = tiny_plan()
DOCUMENT = json.loads(encode_graph(PLAN.graph))
HUGE = 2**53 + 1


def refuse(document: Any, pattern: str) -> None:
    """As text, and in a whole file whose digest fits it."""
    text = document if isinstance(document, str) else canonical(document)
    with pytest.raises(ModelError, match=pattern):
        decode_graph(text)
    with pytest.raises(ModelError, match=pattern):
        Plan.from_bytes(sealed(text, PLAN))


def changed(path: tuple[str | int, ...], value: Any) -> Any:
    """The document with the value at a path replaced."""
    document = copy.deepcopy(DOCUMENT)
    place = document
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return document


CONV = ("graph", "steps", 0)
OUT = ("graph", "steps", 1)


def test_the_manifest_of_these_tests_is_right() -> None:
    assert Plan.from_bytes(sealed(DOCUMENT, PLAN)).digest == PLAN.digest


@pytest.mark.parametrize(
    ("text", "pattern"),
    [
        ("", "not readable JSON"),
        ("{", "not readable JSON"),
        ("[" * 200_000, "not readable JSON"),
        ('{"a":1,"a":1}', "not readable JSON"),
        (canonical(DOCUMENT).replace("0.125", "NaN"), "not readable JSON"),
        (canonical(DOCUMENT).replace("0.125", "Infinity"), "not readable JSON"),
        (canonical(DOCUMENT).replace("0.125", "-Infinity"), "not readable JSON"),
        (canonical(DOCUMENT).replace("16891", "9" * 5000), "not readable JSON"),
        (canonical(DOCUMENT).replace("0.125", "1e999"), "out of range"),
        (canonical(DOCUMENT).replace("0.125", "9" * 400), "out of range"),
        (canonical(DOCUMENT).replace("16891", "9" * 400), "out of range"),
        ("[]", "not a slalom plan"),
        ("null", "not a slalom plan"),
        ('"slalom-plan"', "not a slalom plan"),
        ("{}", "not a slalom plan"),
    ],
)
def test_texts_that_are_no_manifest(text: str, pattern: str) -> None:
    refuse(text, pattern)


def test_a_nest_too_deep_in_a_field() -> None:
    marker = canonical(changed((*CONV, "maps"), "@"))
    refuse(marker.replace('"@"', "[" * 100_000 + "]" * 100_000), "not readable JSON")
    refuse(marker.replace('"@"', "[" * 500 + "]" * 500), r"graph.steps\[0\]\(conv\).maps\[0\]")


@pytest.mark.parametrize(
    ("path", "value", "pattern"),
    [
        (("format",), "safetensors", "not a slalom plan"),
        (("version",), 2, "format version 2, this library reads version 1"),
        (("version",), "1", "format version '1'"),
        (("version",), None, "format version None"),
        (("more",), 1, "unknown fields at its top"),
        (("graph",), None, "graph: expected a Graph"),
        (("graph",), [], "graph: expected a Graph"),
        (("graph", "kind"), "Grape", "graph: expected a Graph"),
        (("graph", "steps"), {}, "graph.steps: expected a list"),
        (("graph", "steps"), "conv", "graph.steps: expected a list"),
        (("graph", "classes"), [1], r"graph.classes\[0\]: expected str, found int"),
        (("graph", "model"), 7, "graph.model: expected str"),
        (("graph", "preprocessing"), {}, "graph.preprocessing: unknown kind None"),
        (("graph", "preprocessing"), {"kind": "Preprocessing"}, "graph.preprocessing: missing crop_size"),
        (("graph", "input", "layout"), "sideways", "graph.input.*layout 'sideways'"),
        (("graph", "input", "layout"), 1, "unknown layout 1"),
        (("graph", "input", "layout"), None, "unknown layout None"),
        (("graph", "input", "output", "kind"), "Real", "expected a Activation"),
        (("graph", "input", "output", "bits"), True, "bits: expected int, found bool"),
        (("graph", "input", "output", "bits"), 8.0, "bits: expected int, found float"),
        (("graph", "input", "output", "bits"), "8", "bits: expected int, found str"),
        (("graph", "input", "output", "bits"), HUGE, "bits: integer out of range"),
        (("graph", "input", "output", "bits"), -HUGE, "bits: integer out of range"),
        (("graph", "input", "output", "scale"), True, "scale: expected float, found bool"),
        (("graph", "input", "output", "scale"), "0.1", "scale: expected float, found str"),
        (("graph", "input", "output", "scale"), HUGE, "scale: number out of range"),
        (("graph", "input", "output", "shape"), [3, 3, True], r"shape\[2\]: expected int, found bool"),
        ((*CONV, "kind"), "Quantum", r"graph.steps\[0\]: unknown kind 'Quantum'"),
        ((*CONV, "kind"), "Window", r"graph.steps\[0\]: unknown kind 'Window'"),
        ((*CONV, "kind"), None, r"graph.steps\[0\]: unknown kind None"),
        ((*CONV, "kind"), ["Linear"], r"graph.steps\[0\]: unknown kind"),
        (CONV, 3, r"graph.steps\[0\]: unknown kind None"),
        (CONV, None, r"graph.steps\[0\]: unknown kind None"),
        ((*CONV, "more"), 1, r"graph.steps\[0\]: unknown field 'more'"),
        ((*CONV, "output"), {"kind": "Real", "shape": [2, 2, 1]}, r"conv\).output: expected a Accumulator"),
        ((*CONV, "maps"), {"kind": "Dense"}, "maps: expected a list"),
        ((*CONV, "maps", 0, "kind"), "Fourier", r"maps\[0\]: unknown kind 'Fourier'"),
        ((*CONV, "maps", 0, "stride"), [1], "stride: expected 2 entries, found 1"),
        ((*CONV, "maps", 0, "stride"), [1, 1, 1], "stride: expected 2 entries, found 3"),
        ((*CONV, "maps", 0, "stride"), [1, None], r"stride\[1\]: expected int, found NoneType"),
        ((*CONV, "maps", 0, "padding"), "0000", "padding: expected a list"),
        ((*CONV, "maps", 0, "groups"), True, "groups: expected int, found bool"),
        ((*CONV, "maps", 0, "weight"), 1, "weight: expected str, found int"),
        ((*OUT, "operations", 1, "function"), "exec", r"out\).operations\[1\].*unknown function 'exec'"),
        ((*OUT, "operations", 1, "parameter"), True, "parameter: expected float, found bool"),
        ((*OUT, "output", "kind"), "Accumulator", r"out\).output: unknown kind 'Accumulator'"),
    ],
)
def test_fields_that_are_wrong(path: tuple[str | int, ...], value: Any, pattern: str) -> None:
    refuse(changed(path, value), pattern)


def objects(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[tuple[str | int, ...], dict[str, Any]]]:
    """Every JSON object of a document, with its path."""
    if isinstance(value, dict):
        yield path, value
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in pairs:
        yield from objects(item, (*path, key))


def test_every_field_of_every_kind_of_step_is_needed_and_none_is_added() -> None:
    """Each kind of object, one field less or one more: refused by place."""
    document = json.loads(encode_graph(plan_of("every_step").graph))
    seen = set()
    for _, item in objects(document):
        if item.get("kind") in seen or "kind" not in item:
            continue
        seen.add(item["kind"])
        for key in list(item):
            kept = item.pop(key)
            with pytest.raises(ModelError, match=r"^graph"):
                decode_graph(canonical(document))
            item[key] = kept
        item["x"] = 1
        with pytest.raises(ModelError, match="unknown field 'x'"):
            decode_graph(canonical(document))
        del item["x"]
    assert len(seen) == 22, sorted(seen)
    decode_graph(canonical(document))


@pytest.mark.parametrize(
    "text",
    [
        json.dumps(DOCUMENT),  # spaces
        canonical(DOCUMENT) + " ",
        canonical(DOCUMENT).replace("0.125", "1.25e-1"),
        canonical(DOCUMENT).replace('"version":1', '"version":1.0'),
        canonical(DOCUMENT).replace('"version":1', '"version":true'),
        canonical(DOCUMENT).replace('"tiny"', '"\\u0074iny"'),
        json.dumps(dict(reversed(DOCUMENT.items())), separators=(",", ":")),
    ],
)
def test_another_spelling_of_the_same_plan_is_refused(text: str) -> None:
    """One plan has one manifest, so a digest cannot be moved to another text."""
    assert text != encode_graph(PLAN.graph)
    with pytest.raises(ModelError, match="digest"):
        Plan.from_bytes(sealed(text, PLAN))
