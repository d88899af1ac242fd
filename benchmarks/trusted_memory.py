"""Measures the memory of the trusted side alone: the device runs in another process, so that torch is not counted.

    python benchmarks/trusted_memory.py PLAN [--protection verified] [--batch-size 1 8]

Prints resident memory above a bare interpreter (with NumPy and slalom imported) after each stage, one JSON document.
The process boundary here is a measuring device only: it carries arrays by pickle and protects nothing.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import multiprocessing as mp
import sys
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from slalom import Plan
from slalom.arithmetic.dispatch import make_dispatch
from slalom.bench.evaluate import random_samples
from slalom.bench.memory import resident_bytes, trusted_memory
from slalom.link.port import Claim
from slalom.trusted.policy import parse_policy
from slalom.trusted.session import SessionOptions, TrustedSession


class ProcessDevice:
    """An honest device in a child process, one request at a time."""

    def __init__(self, path: str) -> None:
        self._pipe, child = mp.Pipe()
        self._process = mp.get_context("spawn").Process(target=serve, args=(child, path), daemon=True)
        self._process.start()

    def load(self, plan: Plan) -> None:
        """The child has loaded the plan from its file."""

    def run_ahead(self, activation: np.ndarray) -> Iterator[Claim]:
        self._pipe.send(("run_ahead", activation))
        while (claim := self._pipe.recv()) is not None:
            yield Claim(*claim)

    def compute(self, step_names: Sequence[str], words: np.ndarray) -> Sequence[np.ndarray]:
        self._pipe.send(("compute", list(step_names), words))
        answer: Sequence[np.ndarray] = self._pipe.recv()
        return answer

    def run(self, activation: np.ndarray) -> Sequence[np.ndarray]:
        self._pipe.send(("run", activation))
        answer: Sequence[np.ndarray] = self._pipe.recv()
        return answer

    def close(self) -> None:
        self._process.terminate()


def serve(pipe: Connection, path: str) -> None:
    """The child: an in-process device behind a pipe."""
    from slalom.device.local import LocalDevice

    device = LocalDevice()
    device.load(Plan.load(path))
    while True:
        command, *arguments = pipe.recv()
        if command == "run_ahead":
            for claim in device.run_ahead(*arguments):
                pipe.send((claim.step, claim.words))
            pipe.send(None)
        else:
            pipe.send(getattr(device, command)(*arguments))


def resident() -> int:
    """Resident bytes now, after returning what the allocator holds for nobody."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    return resident_bytes()[0]


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
    device = ProcessDevice(arguments.plan)
    session = TrustedSession(plan, device, make_dispatch(), SessionOptions(policy, micro_batches=1))
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
    session.close()
    device.close()
    sys.stdout.write(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
