"""What `slalom bench` shows: tables, or a document of the same rows."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from slalom.bench.boundary import BoundaryRow, RoundTrip
from slalom.bench.comparison import Comparison, comparison_document
from slalom.bench.engine import EngineRow
from slalom.bench.fused import FusedRow
from slalom.bench.provenance import processor
from slalom.cli.comparison_view import print_comparison
from slalom.cli.screen import SEPARATE, data_console, plain_table, print_titled, printable, readable_seconds


@dataclass(frozen=True)
class Measurements:
    """All figures of one run: `comparison` is None where only the kernels were measured, `fused` and `engine` are empty
    where they were not, and `round_trip` is None and `boundary` empty where the boundary was not. `interrupted`: these
    are the figures until then."""

    isa: str
    fused: list[FusedRow]
    engine: list[EngineRow]
    comparison: Comparison | None = None
    round_trip: RoundTrip | None = None
    boundary: tuple[BoundaryRow, ...] = ()
    interrupted: bool = False


def bench_document(taken: Measurements) -> dict[str, Any]:
    """Every row by the names of its fields: nanoseconds an element, GMAC/s, images/s, seconds, bytes."""
    found = taken.comparison
    return {
        "processor": processor(),
        "isa": taken.isa,
        "platform": SEPARATE if found is None else found.platform,
        "fused_pass": [dataclasses.asdict(row) | {"ratio": row.ratio} for row in taken.fused],
        "linear_engine": [dataclasses.asdict(row) for row in taken.engine],
        "model": None if found is None else found.model,
        "plan_digest": None if found is None else found.plan_digest,
        "side_by_side": None if found is None else comparison_document(found),
        "round_trip": None if taken.round_trip is None else dataclasses.asdict(taken.round_trip),
        "boundary": [dataclasses.asdict(row) for row in taken.boundary],
    }


def print_measurements(taken: Measurements) -> None:
    """The tables, on stdout."""
    console = data_console()
    one = f"{taken.isa}, one thread"
    console.print(Text(f"{printable(processor())}; {SEPARATE}"))
    if taken.fused:
        print_titled(
            console,
            f"trusted pass, {one}: nanoseconds an element",
            fused_table(taken.fused),
            "the copy moves as many bytes, half read and half written, in turns with the pass",
        )
    if taken.engine:
        print_titled(
            console,
            f"trusted linear engine, {one}: GMAC/s",
            engine_table(taken.engine),
            "words are what masks take; float64 is NumPy's product of the same matrices",
        )
    if taken.comparison is not None:
        console.print()
        print_comparison(taken.comparison)
    if taken.round_trip is not None:
        _print_boundary(console, taken.round_trip, taken.boundary)


def _print_boundary(console: Console, trip: RoundTrip, rows: tuple[BoundaryRow, ...]) -> None:
    spread = f"p10 - p90 {readable_seconds(trip.p10)} - {readable_seconds(trip.p90)}"
    caption = f"an empty message to the worker and back: median {readable_seconds(trip.median)}, {spread}"
    title = "the boundary, a device on the CPU in this process and in its own: images/s"
    print_titled(console, title, boundary_table(rows), caption)


def fused_table(rows: list[FusedRow]) -> Table:
    """The trusted pass beside a copy that moves as many bytes."""
    table = plain_table(("pass", "data in"), ("bytes/element", "median", "p10 - p90", "copy", "of copy"))
    for row in rows:
        table.add_row(
            "private" if row.masked else "verified",
            "memory" if row.from_memory else "cache",
            f"{row.bytes_per_element:.1f}",
            f"{row.median:.3f}",
            f"{row.p10:.3f} - {row.p90:.3f}",
            f"{row.copy:.3f}",
            f"{row.ratio:.2f}x",
        )
    return table


def engine_table(rows: list[EngineRow]) -> Table:
    """The trusted linear engine beside NumPy's float64 product."""
    table = plain_table(("layer",), ("activations", "words", "float64"))
    for row in rows:
        table.add_row(row.layer, f"{row.activations:.1f}", f"{row.words:.1f}", f"{row.float64:.1f}")
    return table


def boundary_table(rows: Sequence[BoundaryRow]) -> Table:
    """The device in a spawned worker beside one in this process."""
    table = plain_table(("level",), ("in process", "spawned", "ratio"))
    for row in rows:
        table.add_row(row.level, f"{row.in_process:.1f}", f"{row.spawned:.1f}", f"{row.ratio:.2f}x")
    return table
