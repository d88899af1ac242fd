"""What the boundary costs: an empty message there and back, and images per second beside a device in this process."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from slalom.fleet.roster import LinkChoice, make_source
from slalom.link.remote import RemoteDevice
from slalom.plan import Plan
from slalom.session import Session
from slalom.trusted.policy import Protection
from slalom.worker.options import WorkerOptions

PINGS = 1000
REPEATS = 5
LEVELS = (Protection.VERIFIED, Protection.PRIVATE)


@dataclass(frozen=True)
class RoundTrip:
    """Seconds of an empty message to a spawned worker and back, over `count` of them."""

    count: int
    median: float
    p10: float
    p90: float


@dataclass(frozen=True)
class BoundaryRow:
    """One level with the device in this process and in a spawned worker: images per second, medians, masks ready.

    `ratio` is the median of the spawned rate over the other, pair by pair.
    """

    level: str
    in_process: float
    spawned: float
    ratio: float


def measure_round_trip(plan: Plan, worker_device: str = "cpu") -> RoundTrip:
    """Pings one worker that computes on `worker_device`. Raises DeviceError where it cannot be started."""
    device = make_source("spawn", LinkChoice("auto", 1, 60.0, WorkerOptions(device=worker_device))).open()
    if not isinstance(device, RemoteDevice):
        raise TypeError("a spawned worker is reached over a link")
    try:
        device.load(plan)
        device.ping()
        seconds = [device.ping() for _ in range(PINGS)]
    finally:
        device.close()
    p10, median, p90 = (float(np.percentile(seconds, part)) for part in (10, 50, 90))
    return RoundTrip(PINGS, median, p10, p90)


def measure_boundary(
    plan: Plan, images: np.ndarray, threads: int | None, progress: Callable[[int], None]
) -> list[BoundaryRow]:
    """A row for each level, both devices taking turns on `images` [B, ...]."""
    rows = []
    for level in LEVELS:
        rows.append(_measure_level(level, plan, images, threads))
        progress(1)
    return rows


def _measure_level(level: Protection, plan: Plan, images: np.ndarray, threads: int | None) -> BoundaryRow:
    with (
        Session(plan, protection=level, threads=threads, device="cpu") as inner,
        Session(plan, protection=level, threads=threads, device="spawn") as outer,
    ):
        pairs = [(_rate(inner, images), _rate(outer, images)) for _ in range(REPEATS + 1)][1:]  # the first warms up
    return BoundaryRow(
        level=level.value,
        in_process=float(np.median([inside for inside, _ in pairs])),
        spawned=float(np.median([outside for _, outside in pairs])),
        ratio=float(np.median([outside / inside for inside, outside in pairs])),
    )


def _rate(session: Session, images: np.ndarray) -> float:
    session.prepare_masks(len(images))
    begin = time.perf_counter()
    session.run(images)
    return len(images) / (time.perf_counter() - begin)
