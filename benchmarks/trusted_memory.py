"""Measures the memory of the trusted process: its worker is another one, so torch is not counted.

    python benchmarks/trusted_memory.py PLAN [--protection verified] [--batch-size 1 8]

Prints resident memory above a bare interpreter (with NumPy and slalom imported) after each stage, one JSON document.
Shared memory that both sides map counts as resident here too; `shared` says how much of it there is.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import sys
from pathlib import Path
from typing import Any

from slalom import Plan, Session
from slalom.bench.evaluate import random_samples
from slalom.bench.memory import resident_bytes, trusted_memory
from slalom.trusted.policy import parse_policy


def resident() -> int:
    """Resident bytes now, after returning what the allocator holds for nobody."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    return resident_bytes()[0]


def shared() -> int:
    """Resident bytes of shared memory files."""
    words = Path("/proc/self/status").read_text(encoding="ascii").split()
    return int(words[words.index("RssShmem:") + 1]) * 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("plan")
    parser.add_argument("--protection", default="verified")
    parser.add_argument("--check", default="preprocessed")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--batch-size", type=int, nargs="+", default=[1, 8])
    arguments = parser.parse_args()
    policy = parse_policy(arguments.protection, arguments.check, arguments.rounds, "ahead")

    base = resident()
    plan = Plan.load(arguments.plan)
    predicted = trusted_memory(plan, policy)
    batches = {size: random_samples(plan, size, 0).images for size in arguments.batch_size}
    loaded = resident()
    session = Session(
        plan,
        protection=arguments.protection,
        check=arguments.check,
        rounds=arguments.rounds,
        micro_batches=1,
    )
    del plan
    rows: dict[str, Any] = {"loaded": loaded - base, "steady_after_set_up": resident() - base}
    for size, images in batches.items():
        session.run(images)
        rows[f"steady_after_batch_{size}"] = resident() - base
        rows[f"in_flight_batch_{size}"] = session.report.peak_in_flight_bytes
    rows["peak"] = resident_bytes()[1] - base
    rows["held_by_kind"] = dict(session.report.steady_bytes)
    rows["predicted_steady"] = predicted.steady_total
    rows["predicted_peak"] = predicted.peak
    rows["predicted_in_flight_per_image"] = predicted.in_flight
    rows["interpreter"] = base
    rows["torch_imported"] = "torch" in sys.modules
    rows["shared"] = shared()
    session.close()
    sys.stdout.write(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
