"""What `slalom bench` shows: tables, or a document of the same rows."""

from __future__ import annotations

import dataclasses
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from slalom.bench.boundary import BoundaryRow, RoundTrip
from slalom.bench.engine import EngineRow
from slalom.bench.fused import FusedRow
from slalom.bench.levels import LevelRow
from slalom.cli.screen import SEPARATE, data_console, plain_table, printable, readable_seconds
from slalom.plan import Plan


@dataclass(frozen=True)
class NetworkMeasurements:
    """The rows of one network."""

    plan: Plan
    batch_size: int
    levels: list[LevelRow]
    round_trip: RoundTrip
    boundary: list[BoundaryRow]


@dataclass(frozen=True)
class Measurements:
    """All rows of one run; `network` is None where only the kernels were measured."""

    isa: str
    fused: list[FusedRow]
    engine: list[EngineRow]
    network: NetworkMeasurements | None = None


def bench_document(taken: Measurements) -> dict[str, Any]:
    """Every row by the names of its fields: nanoseconds an element, GMAC/s, images/s, seconds."""
    network = taken.network
    return {
        "processor": processor(),
        "isa": taken.isa,
        "platform": SEPARATE,
        "fused_pass": [dataclasses.asdict(row) | {"ratio": row.ratio} for row in taken.fused],
        "linear_engine": [dataclasses.asdict(row) for row in taken.engine],
        "model": None if network is None else network.plan.graph.model,
        "plan_digest": None if network is None else network.plan.digest,
        "batch_size": None if network is None else network.batch_size,
        "levels": [] if network is None else [dataclasses.asdict(row) for row in network.levels],
        "round_trip": None if network is None else dataclasses.asdict(network.round_trip),
        "boundary": [] if network is None else [dataclasses.asdict(row) for row in network.boundary],
    }


def print_measurements(taken: Measurements) -> None:
    """The tables, on stdout."""
    console = data_console()
    console.print(Text(f"{printable(processor())}; {SEPARATE}"))
    one = f"{taken.isa}, one thread"
    _print(
        console,
        f"trusted pass, {one}: nanoseconds an element",
        fused_table(taken.fused),
        "the copy moves as many bytes, half read and half written, in turns with the pass",
    )
    _print(
        console,
        f"trusted linear engine, {one}: GMAC/s",
        engine_table(taken.engine),
        "words are what masks take; float64 is NumPy's product of the same matrices",
    )
    if taken.network is not None:
        _print_network(console, taken.network)


def _print_network(console: Console, network: NetworkMeasurements) -> None:
    model = f"{printable(network.plan.graph.model)}, batches of {network.batch_size}"
    _print(
        console,
        f"{model}: images/s (simulation)",
        levels_table(network.levels),
        "trusted, device, masks: busy time an image; masks are made ahead",
    )
    trip = network.round_trip
    spread = f"p10 - p90 {readable_seconds(trip.p10)} - {readable_seconds(trip.p90)}"
    _print(
        console,
        f"the boundary, {model}: images/s",
        boundary_table(network.boundary),
        f"an empty message to the worker and back: median {readable_seconds(trip.median)}, {spread}",
    )


def _print(console: Console, title: str, table: Table, caption: str) -> None:
    console.print(Text(f"\n{title}", style="bold"))
    console.print(table)
    console.print(Text(caption, style="dim"))


def processor() -> str:
    """The processor's name as the system gives it."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


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


def boundary_table(rows: list[BoundaryRow]) -> Table:
    """The device in a spawned worker beside one in this process."""
    table = plain_table(("level",), ("in process", "spawned", "ratio"))
    for row in rows:
        table.add_row(row.level, f"{row.in_process:.1f}", f"{row.spawned:.1f}", f"{row.ratio:.2f}x")
    return table


def levels_table(rows: list[LevelRow]) -> Table:
    """Every level beside the plain float network."""
    table = plain_table(("level",), ("median", "slowest", "fastest", "of float", "trusted", "device", "masks"))
    for row in rows:
        busy = (row.trusted_seconds, row.device_seconds, row.mask_seconds)
        table.add_row(
            row.name,
            f"{row.images_per_second:.1f}",
            f"{row.slowest:.1f}",
            f"{row.fastest:.1f}",
            "-" if row.ratio is None else f"{row.ratio:.2f}x",
            *(readable_seconds(seconds) if seconds else "-" for seconds in busy),
        )
    return table
