"""What `slalom bench` shows: three tables, or a document of the same rows."""

from __future__ import annotations

import dataclasses
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from slalom.bench.engine import EngineRow
from slalom.bench.fused import FusedRow
from slalom.bench.levels import LevelRow
from slalom.cli.screen import SIMULATION, data_console, plain_table, printable, readable_seconds
from slalom.plan import Plan


@dataclass(frozen=True)
class Measurements:
    """All rows of one run; `plan` and `levels` are empty where only the kernels were measured."""

    isa: str
    fused: list[FusedRow]
    engine: list[EngineRow]
    plan: Plan | None
    batch_size: int
    levels: list[LevelRow]


def bench_document(taken: Measurements) -> dict[str, Any]:
    """Every row by the names of its fields: nanoseconds an element, GMAC/s, images/s, seconds an image."""
    return {
        "processor": processor(),
        "isa": taken.isa,
        "platform": SIMULATION,
        "fused_pass": [dataclasses.asdict(row) | {"ratio": row.ratio} for row in taken.fused],
        "linear_engine": [dataclasses.asdict(row) for row in taken.engine],
        "model": None if taken.plan is None else taken.plan.graph.model,
        "plan_digest": None if taken.plan is None else taken.plan.digest,
        "batch_size": None if taken.plan is None else taken.batch_size,
        "levels": [dataclasses.asdict(row) for row in taken.levels],
    }


def print_measurements(taken: Measurements) -> None:
    """The tables, on stdout."""
    console = data_console()
    console.print(Text(f"{printable(processor())}; {SIMULATION}"))
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
    if taken.plan is not None:
        _print(
            console,
            f"{printable(taken.plan.graph.model)}, batches of {taken.batch_size}: images/s (simulation)",
            levels_table(taken.levels),
            "trusted, device, masks: busy time an image; masks are made ahead",
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
