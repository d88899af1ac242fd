"""Steps as JSON and back: every object bears its kind, every field must be there, nothing else may be."""

from __future__ import annotations

import dataclasses
import json
import math
import types
from enum import StrEnum
from typing import Any, Union, get_args, get_origin, get_type_hints

from slalom.errors import ModelError
from slalom.plan import steps
from slalom.plan.steps import Graph

FORMAT = "slalom-plan"
VERSION = 1

_MAXIMUM_INTEGER = 2**53


def encode_graph(graph: Graph) -> str:
    """The canonical JSON of a graph: sorted keys, no spaces, shortest round-trip floats."""
    document = {"format": FORMAT, "version": VERSION, "graph": _encode(graph)}
    return json.dumps(document, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=True)


def decode_graph(text: str) -> Graph:
    """The graph that `encode_graph` wrote. Raises ModelError for anything else, naming the place."""
    try:
        document = json.loads(text, object_pairs_hook=_unique_keys, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise ModelError("the plan's manifest is not readable JSON") from error
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise ModelError("this file is not a slalom plan")
    if document.get("version") != VERSION:
        raise ModelError(
            f"the plan has format version {document.get('version')!r:.40}, this library reads version {VERSION}",
            hint="compile the network again with this version of slalom",
        )
    if set(document) != {"format", "version", "graph"}:
        raise ModelError("the plan's manifest has unknown fields at its top")
    decoded = _decode(document["graph"], Graph, "graph")
    if not isinstance(decoded, Graph):
        raise ModelError("graph: not a graph")
    return decoded


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    mapping = dict(pairs)
    if len(mapping) != len(pairs):
        raise ValueError("a key appears twice")
    return mapping


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not a number of a plan")


def _encode(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {item.name: _encode(getattr(value, item.name)) for item in dataclasses.fields(value)}
        return {"kind": type(value).__name__, **fields}
    if isinstance(value, StrEnum):
        return value.value
    if isinstance(value, tuple):
        return [_encode(item) for item in value]
    return value


def _decode(value: Any, expected: Any, place: str) -> Any:
    origin = get_origin(expected)
    if origin in (Union, types.UnionType):
        return _decode_union(value, get_args(expected), place)
    if origin is tuple:
        return _decode_tuple(value, get_args(expected), place)
    if dataclasses.is_dataclass(expected) and isinstance(expected, type):
        return _decode_dataclass(value, expected, place)
    if isinstance(expected, type) and issubclass(expected, StrEnum):
        return _decode_enum(value, expected, place)
    return _decode_plain(value, expected, place)


def _decode_union(value: Any, choices: tuple[Any, ...], place: str) -> Any:
    if value is None and type(None) in choices:
        return None
    kind = value.get("kind") if isinstance(value, dict) else None
    for choice in choices:
        if getattr(choice, "__name__", None) == kind:
            return _decode(value, choice, place)
    names = ", ".join(choice.__name__ for choice in choices if choice is not type(None))
    raise ModelError(f"{place}: unknown kind {kind!r:.60}; expected one of {names}")


def _decode_tuple(value: Any, arguments: tuple[Any, ...], place: str) -> tuple[Any, ...]:
    if not isinstance(value, list):
        raise ModelError(f"{place}: expected a list")
    if len(arguments) == 2 and arguments[1] is Ellipsis:
        return tuple(_decode(item, arguments[0], f"{place}[{index}]") for index, item in enumerate(value))
    if len(value) != len(arguments):
        raise ModelError(f"{place}: expected {len(arguments)} entries, found {len(value)}")
    pairs = zip(value, arguments, strict=True)
    return tuple(_decode(item, argument, f"{place}[{index}]") for index, (item, argument) in enumerate(pairs))


def _decode_dataclass(value: Any, expected: type, place: str) -> Any:
    if not isinstance(value, dict) or value.get("kind") != expected.__name__:
        raise ModelError(f"{place}: expected a {expected.__name__}")
    hints = get_type_hints(expected, vars(steps))
    missing = sorted(set(hints) - set(value))
    unknown = sorted(set(value) - set(hints) - {"kind"})
    if missing or unknown:
        raise ModelError(f"{place}: {'missing ' + missing[0] if missing else f'unknown field {unknown[0]!r:.60}'}")
    name = value.get("name")
    here = f"{place}({name})" if isinstance(name, str) and len(name) < 80 else place
    return expected(**{key: _decode(value[key], hint, f"{here}.{key}") for key, hint in hints.items()})


def _decode_enum(value: Any, expected: type[StrEnum], place: str) -> StrEnum:
    if value not in [member.value for member in expected]:
        raise ModelError(f"{place}: unknown {expected.__name__.lower()} {value!r:.60}")
    return expected(value)


def _decode_plain(value: Any, expected: Any, place: str) -> Any:
    if expected is float and isinstance(value, int | float) and not isinstance(value, bool):
        if (isinstance(value, int) and abs(value) > _MAXIMUM_INTEGER) or not math.isfinite(value):
            raise ModelError(f"{place}: number out of range")
        return float(value)
    if type(value) is not expected:
        raise ModelError(f"{place}: expected {expected.__name__}, found {type(value).__name__}")
    if expected is int and abs(value) > _MAXIMUM_INTEGER:
        raise ModelError(f"{place}: integer out of range")
    return value
