"""The comparison as one value: the rows of a network with where they come from; and back from its JSON document."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from slalom.bench.limits import Limits, Standing, standing_of
from slalom.bench.protected import Timeline
from slalom.bench.provenance import Provenance
from slalom.bench.rows import Row, Stages
from slalom.bench.side_by_side import Skipped
from slalom.bench.timing import Spread
from slalom.errors import InputError
from slalom.trusted.recorder import Side, Span


@dataclass(frozen=True)
class Comparison:
    """The rows of one run. `platform` says what was simulated; `weights` where the network's come from."""

    provenance: Provenance
    platform: str
    model: str
    plan_digest: str
    weights: str
    worker_device: str
    rows: tuple[Row, ...]
    limits: Limits
    skipped: tuple[Skipped, ...]
    timelines: tuple[Timeline, ...]

    def standing(self, row: Row) -> Standing:
        """How a row stands beside the limits and the others."""
        return standing_of(row, self.rows, self.limits)


def comparison_document(found: Comparison) -> dict[str, Any]:
    """Every figure by the name of its field, and each row's standing."""
    document = dataclasses.asdict(found)
    document["rows"] = [
        dataclasses.asdict(row) | {"standing": dataclasses.asdict(found.standing(row))} for row in found.rows
    ]
    for timeline, kept in zip(document["timelines"], found.timelines, strict=True):
        timeline["spans"] = [span._asdict() for span in kept.spans]
    return document


def decode_comparison(document: Any) -> Comparison:
    """The comparison in a document that `comparison_document` made. Raises InputError for anything else."""
    try:
        return Comparison(
            **{
                **document,
                "provenance": Provenance(**document["provenance"]),
                "rows": tuple(_decode_row(row) for row in document["rows"]),
                "limits": _decode_limits(document["limits"]),
                "skipped": tuple(Skipped(**item) for item in document["skipped"]),
                "timelines": tuple(_decode_timeline(item) for item in document["timelines"]),
            }
        )
    except (TypeError, KeyError, ValueError, AttributeError) as error:
        raise InputError("the document holds no measurements", hint="slalom bench --json writes one") from error


def _decode_row(found: Mapping[str, Any]) -> Row:
    fields = {name: value for name, value in found.items() if name != "standing"}
    spreads = {name: Spread(**{part: float(value) for part, value in fields[name].items()}) for name in _SPREADS}
    stages = None if fields["stages"] is None else Stages(**fields["stages"])
    return Row(**{**fields, **spreads, "stages": stages})


_SPREADS = ("rate", "latency")


def _decode_limits(found: Mapping[str, Any]) -> Limits:
    return Limits(**{**found, "memory": {int(cores): float(rate) for cores, rate in found["memory"].items()}})


def _decode_timeline(found: Mapping[str, Any]) -> Timeline:
    spans = tuple(Span(**{**span, "side": Side(span["side"])}) for span in found["spans"])
    return Timeline(**{**found, "spans": spans})
