"""Requests of `private` whose masks wait in memory, beside requests whose masks all lie outside, sealed: what spilling
costs where it cannot be hidden.

    python benchmarks/spilled_requests.py PLAN [--folder /dev/shm] [--threads N] [--batch 8] [--rounds 9]

A mask that was sealed is opened as its request begins: no thread brings it in before, and none makes masks meanwhile.
The two take turns. Medians.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np

from slalom import MaskBankOptions, Plan, Session
from slalom.trusted.bank import MaskBank

EVERYTHING = 10**15


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("plan", type=Path)
    parser.add_argument("--folder", type=Path, default=Path("/dev/shm"))
    parser.add_argument("--threads", type=int)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=9)
    words = parser.parse_args()
    plan = Plan.load(words.plan)
    images = np.random.default_rng(0).standard_normal((words.batch, *plan.graph.input.output.shape), np.float32)
    if plan.graph.input.output.shape[-1] in (1, 3):
        images = np.ascontiguousarray(np.moveaxis(images, -1, 1))
    MaskBank.bring_in = lambda self, maker: False  # type: ignore[method-assign]
    MaskBank.wanted = lambda self, usual, turn, *, filling: None  # type: ignore[method-assign]
    taken: dict[str, list[float]] = {"in memory": [], "outside": []}
    with tempfile.TemporaryDirectory(dir=words.folder) as folder:
        banks = {
            "in memory": MaskBankOptions(words.batch, words.batch, words.batch, EVERYTHING),
            "outside": MaskBankOptions(words.batch, words.batch, words.batch, 1, Path(folder)),
        }
        with (
            Session(plan, threads=words.threads, mask_bank=banks["in memory"]) as ready,
            Session(plan, threads=words.threads, mask_bank=banks["outside"]) as spilled,
        ):
            for _ in range(words.rounds + 1):
                for name, session in (("in memory", ready), ("outside", spilled)):
                    session.prepare_masks(words.batch)
                    begin = time.perf_counter()
                    session.run(images)
                    taken[name].append(time.perf_counter() - begin)
    medians = {name: statistics.median(seconds[1:]) for name, seconds in taken.items()}
    for name, seconds in medians.items():
        rate = words.batch / seconds
        print(f"masks {name:10s} {seconds * 1e3:8.1f} ms a request of {words.batch}, {rate:7.1f} images/s")
    print(f"outside / in memory: {medians['outside'] / medians['in memory']:.2f}")


if __name__ == "__main__":
    main()
