"""The side-by-side comparison as tables for a terminal of eighty columns."""

from __future__ import annotations

from rich.table import Table
from rich.text import Text

from slalom.bench.comparison import Comparison
from slalom.bench.rows import Row
from slalom.cli.screen import data_console, plain_table, print_titled, printable, readable_bytes, readable_seconds

NOTHING = "-"


def print_comparison(found: Comparison) -> None:
    """Speed, bytes and limits, stages, and what was left out, on stdout."""
    console = data_console()
    console.print(Text(origin_line(found)))
    model = printable(found.model)
    in_tee = "in-TEE: the strongest engine wholly inside, on as many cores; p50: of a request's time"
    print_titled(console, f"{model}: images/s", speed_table(found), in_tee)
    if any(row.stages for row in found.rows):
        caption = "an image's bytes; limits in images/s: the link's each way and both, memory's for what crosses"
        print_titled(console, f"{model}: what crosses, and the limits it meets", limits_table(found), caption)
        caption = "an image's; wait: for the device and the link; device: answers overlap; masks are made ahead"
        print_titled(console, f"{model}: where the time goes", stages_table(found), caption)
    for line in notes(found):
        console.print(Text(line, style="dim"))


def origin_line(found: Comparison) -> str:
    """The machine, the code and what was simulated."""
    origin = found.provenance
    gpu = f"; {origin.gpu}" if origin.gpu else ""
    return printable(f"{origin.processor}{gpu}; {found.platform}; commit {origin.commit}, {origin.date}")


def notes(found: Comparison) -> list[str]:
    """What was measured of the machine, how engines ran, and what was left out."""
    limits = found.limits
    memory = ", ".join(f"{readable_bytes(rate)}/s on {cores_text(cores)}" for cores, rate in limits.memory.items())
    lines = [f"memory, read and written: {memory}"]
    if limits.to_device and limits.from_device:
        ways = [(limits.to_device, "up"), (limits.from_device, "down"), (limits.both_ways or 0.0, "both ways at once")]
        rates = ", ".join(f"{readable_bytes(rate)}/s {way}" for rate, way in ways)
        lines.append(f"link to the GPU, pinned memory: {rates}")
    lines += [f"{row.name}, {cores_text(row.cores)}: {row.detail}" for row in found.rows if row.detail]
    lines += [f"not measured: {item.name}: {item.reason}" for item in found.skipped]
    return [printable(line) for line in lines]


def cores_text(cores: int) -> str:
    """How many, in words where it reads better; 0 is the GPU alone."""
    return "the GPU" if cores == 0 else f"{cores} core{'s' if cores > 1 else ''}"


def speed_table(found: Comparison) -> Table:
    """Rates of every row, its latency, and its ratios to the baselines."""
    table = plain_table(("row",), ("cores", "median", "p10 - p90", "p50", "of in-TEE", "of torch"))
    table.columns[0].no_wrap = True
    for row in found.rows:
        cells = speed_cells(found, row)
        table.add_row(*cells[:5], *cells[6:])  # eighty columns have no room for the other percentile
    return table


def speed_cells(found: Comparison, row: Row) -> tuple[str, ...]:
    """A row of the table of speeds."""
    standing = found.standing(row)
    return (
        row.name,
        "GPU" if row.cores == 0 else str(row.cores),
        readable_rate(row.rate.median),
        f"{readable_rate(row.rate.p10)} - {readable_rate(row.rate.p90)}",
        readable_seconds(row.latency.median),
        readable_seconds(row.latency.p90),
        _ratio(standing.over_in_tee),
        _ratio(standing.over_torch),
    )


def limits_table(found: Comparison) -> Table:
    """Bytes each way, and how near each level comes to the link's and the memory's limits."""
    table = plain_table(("level",), ("cores", "up", "down", "link limit", "share", "memory limit", "share"))
    for row in found.rows:
        if row.stages is not None:
            table.add_row(*limit_cells(found, row))
    return table


def limit_cells(found: Comparison, row: Row) -> tuple[str, ...]:
    """A row of the table of limits."""
    standing = found.standing(row)
    return (
        row.name,
        str(row.cores),
        readable_bytes(row.bytes_to_device) if row.bytes_to_device else NOTHING,
        readable_bytes(row.bytes_from_device) if row.bytes_from_device else NOTHING,
        _rate(standing.link_limit),
        _share(standing.link_share),
        _rate(standing.memory_limit),
        _share(standing.memory_share),
    )


def stages_table(found: Comparison) -> Table:
    """Where each level's time goes."""
    table = plain_table(("level",), ("cores", "trusted", "wait", "device", "masks", "set-up, once"))
    for row in found.rows:
        if row.stages is not None:
            table.add_row(*stage_cells(row))
    return table


def stage_cells(row: Row) -> tuple[str, ...]:
    """A row of the table of stages."""
    stages = row.stages
    if stages is None:
        return (row.name, str(row.cores), *[NOTHING] * 5)
    parts = (stages.trusted, stages.wait, stages.device, stages.masks, stages.setup)
    return (row.name, str(row.cores), *(readable_seconds(part) if part else NOTHING for part in parts))


def readable_rate(rate: float) -> str:
    """Images a second with three digits at least."""
    return f"{rate:.0f}" if rate >= 99.95 else f"{rate:.1f}" if rate >= 9.995 else f"{rate:.2f}"


def _rate(rate: float | None) -> str:
    return NOTHING if rate is None else readable_rate(rate)


def _ratio(ratio: float | None) -> str:
    return NOTHING if ratio is None else f"{ratio:.2f}x" if ratio >= 0.1 else f"{ratio:.2g}x"


def _share(share: float | None) -> str:
    return NOTHING if share is None else f"{share:.1%}"
