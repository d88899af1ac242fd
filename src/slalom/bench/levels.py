"""Images per second of one plan at every protection level, beside the plain float network on the same cores."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from slalom.bench.evaluate import FloatNetwork
from slalom.plan import Plan
from slalom.session import Session
from slalom.trusted.policy import Protection

REPEATS = 5


@dataclass(frozen=True)
class LevelRow:
    """Online throughput of one level: images per second, median and the slowest and fastest of the repeats.

    `trusted_seconds` and `device_seconds` are busy time per image; `mask_seconds` is what the masks of an image cost
    ahead of time. `ratio` is the median over the float network's, None where there is none.
    """

    name: str
    images_per_second: float
    slowest: float
    fastest: float
    trusted_seconds: float
    device_seconds: float
    mask_seconds: float
    ratio: float | None


def measure_levels(
    plan: Plan,
    images: np.ndarray,
    float_network: FloatNetwork | None,
    threads: int | None,
    progress: Callable[[int], None],
) -> list[LevelRow]:
    """One row for the float network (where there is one) and one for each level, all on `images` [B, ...]."""
    rows: list[LevelRow] = []
    base = None
    if float_network is not None:
        network = float_network
        median, slowest, fastest = _repeat(lambda: network(images), lambda: None, len(images))
        base = median
        rows.append(LevelRow("float", median, slowest, fastest, 0.0, 0.0, 0.0, 1.0))
        progress(1)
    for level in Protection:
        rows.append(_measure_level(level, plan, images, threads, base))
        progress(1)
    return rows


def _measure_level(
    level: Protection, plan: Plan, images: np.ndarray, threads: int | None, base: float | None
) -> LevelRow:
    with Session(plan, protection=level, threads=threads) as session:
        median, slowest, fastest = _repeat(
            lambda: session.run(images), lambda: session.prepare_masks(len(images)), len(images)
        )
        report = session.report
    count = report.images
    return LevelRow(
        name=level.value,
        images_per_second=median,
        slowest=slowest,
        fastest=fastest,
        trusted_seconds=report.trusted_seconds / count,
        device_seconds=report.device_seconds / count,
        mask_seconds=report.mask_seconds / count,
        ratio=None if base is None else median / base,
    )


def _repeat(work: Callable[[], object], prepare: Callable[[], object], count: int) -> tuple[float, float, float]:
    rates = []
    for _ in range(REPEATS + 1):
        prepare()
        begin = time.perf_counter()
        work()
        rates.append(count / (time.perf_counter() - begin))
    counted = sorted(rates[1:])  # the first warms up
    return counted[len(counted) // 2], counted[0], counted[-1]
