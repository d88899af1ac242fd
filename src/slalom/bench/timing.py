"""Requests timed one after another, and what is told of many timings: the median and percentiles."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

_PATIENCE = 5.0  # times the seconds that a row should take, with what happens off the clock


@dataclass(frozen=True)
class Effort:
    """How long a row is measured: about so many seconds on the clock, and at least so many requests."""

    seconds: float = 2.0
    repeats: int = 5


@dataclass(frozen=True)
class Spread:
    """Percentiles of one figure over requests."""

    p10: float
    median: float
    p90: float


def spread_of(values: Sequence[float]) -> Spread:
    """The percentiles of at least one value, interpolated linearly between neighbours."""
    p10, median, p90 = (float(np.percentile(values, part)) for part in (10, 50, 90))
    return Spread(p10, median, p90)


def time_requests(
    work: Callable[[], object], effort: Effort, prepare: Callable[[], object] | None = None
) -> tuple[float, ...]:
    """Seconds of each request. `prepare` runs before each, off the clock; one request beforehand warms up.

    It ends after `effort.repeats` requests that took `effort.seconds` together, or five times that with what was
    prepared.
    """
    _time_one(work, prepare)
    taken: list[float] = []
    begin = time.perf_counter()
    while len(taken) < effort.repeats or not _is_enough(sum(taken), time.perf_counter() - begin, effort.seconds):
        taken.append(_time_one(work, prepare))
    return tuple(taken)


def _is_enough(clocked: float, elapsed: float, wanted: float) -> bool:
    return clocked >= wanted or elapsed >= _PATIENCE * wanted


def _time_one(work: Callable[[], object], prepare: Callable[[], object] | None) -> float:
    if prepare is not None:
        prepare()
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin
