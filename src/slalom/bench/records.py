"""Rows appended to a CSV file that grows over machines and versions: one line a measurement, whole or not at all."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterator
from pathlib import Path

from slalom.bench.comparison import Comparison
from slalom.bench.rows import Row
from slalom.errors import InputError
from slalom.files import NEW_MODE, written_whole

# Rates are images a second, latencies and stages seconds (stages of one image), bytes of one image, limits bytes a
# second. An empty cell has no meaning for that row.
COLUMNS = (
    "date", "commit", "slalom", "python", "numpy", "torch", "openvino", "processor", "gpu", "platform", "model",
    "plan_digest", "weights", "row", "cores", "batch", "micro_batches", "worker_device", "requests",
    "images_per_second", "images_per_second_p10", "images_per_second_p90", "latency", "latency_p10", "latency_p90",
    "bytes_to_device", "bytes_from_device", "trusted_seconds", "wait_seconds", "device_seconds", "mask_seconds",
    "setup_seconds", "memory_rate", "link_rate_to_device", "link_rate_from_device", "link_rate_both_ways",
    "memory_limit", "memory_share", "link_limit", "link_share", "over_in_tee", "over_torch", "detail",
)  # fmt: skip


def require_appendable(path: Path) -> None:
    """Raises InputError where rows cannot be appended: another header, a last line that is not whole, no folder."""
    _read_whole(path)
    if not path.parent.is_dir():
        raise InputError(f"cannot append to {path}: no directory {path.parent}", hint="make the directory first")
    if not os.access(path.parent, os.W_OK):
        raise InputError(f"cannot append to {path}: {path.parent} is read-only", hint="--append FILE writes elsewhere")


def append_rows(path: Path, found: Comparison) -> None:
    """Appends one line a row, under a header where the file is new. The file is replaced: never a part of it."""
    require_appendable(path)
    lines = io.StringIO()
    writer = csv.writer(lines, lineterminator="\n")
    before = _read_whole(path)
    if not before:
        writer.writerow(COLUMNS)
    writer.writerows([cells[name] for name in COLUMNS] for cells in map(dict, _cells(found)))
    with written_whole(path, path.stat().st_mode & 0o777 if path.exists() else NEW_MODE) as file:
        file.write(before + lines.getvalue().encode())


def _read_whole(path: Path) -> bytes:
    if not path.exists():
        return b""
    if not path.is_file():
        raise InputError(f"cannot append to {path}: it is not a file")
    content = path.read_bytes()
    header = ",".join(COLUMNS).encode() + b"\n"
    if content and not content.startswith(header):
        raise InputError(f"{path} has other columns than these rows", hint="--append another file, or move this one")
    if content and not content.endswith(b"\n"):
        raise InputError(f"the last line of {path} is not whole", hint="end or remove it")
    return content


def _cells(found: Comparison) -> Iterator[list[tuple[str, object]]]:
    origin = found.provenance
    same = [(name, getattr(origin, name)) for name in COLUMNS[:9]]
    same += [(name, getattr(found, name)) for name in ("platform", "model", "plan_digest", "weights")]
    for row in found.rows:
        standing = found.standing(row)
        yield [
            *same,
            *_row_cells(row),
            ("worker_device", found.worker_device if row.stages else None),
            ("memory_rate", found.limits.memory.get(row.cores)),
            ("link_rate_to_device", found.limits.to_device),
            ("link_rate_from_device", found.limits.from_device),
            ("link_rate_both_ways", found.limits.both_ways),
            *((name, getattr(standing, name)) for name in COLUMNS[-7:-1]),
        ]


def _row_cells(row: Row) -> list[tuple[str, object]]:
    stages = row.stages
    kinds = ("trusted", "wait", "device", "masks", "setup")
    names = ("trusted_seconds", "wait_seconds", "device_seconds", "mask_seconds", "setup_seconds")
    return [
        ("row", row.name),
        *((name, getattr(row, name)) for name in ("cores", "batch", "micro_batches", "requests", "detail")),
        ("images_per_second", row.rate.median),
        ("images_per_second_p10", row.rate.p10),
        ("images_per_second_p90", row.rate.p90),
        ("latency", row.latency.median),
        ("latency_p10", row.latency.p10),
        ("latency_p90", row.latency.p90),
        ("bytes_to_device", row.bytes_to_device or None),
        ("bytes_from_device", row.bytes_from_device or None),
        *((name, None if stages is None else getattr(stages, kind)) for name, kind in zip(names, kinds, strict=True)),
    ]
