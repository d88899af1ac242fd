"""Percentiles of known data, and requests that are counted as they should be."""

from __future__ import annotations

import time

import pytest

from slalom.bench.rows import rates_of
from slalom.bench.timing import Effort, Spread, spread_of, time_requests


def test_percentiles_of_known_data() -> None:
    assert spread_of([float(value) for value in range(100, -1, -1)]) == Spread(10.0, 50.0, 90.0)
    assert spread_of([3.0]) == Spread(3.0, 3.0, 3.0)
    assert spread_of([1.0, 2.0]) == Spread(1.1, 1.5, 1.9)


def test_rates_are_of_requests_not_of_the_mean() -> None:
    rate, latency = rates_of([0.5, 1.0, 4.0], 8)
    assert rate.median == 8.0 and latency.median == 1.0
    assert (latency.p10, latency.p90) == pytest.approx((0.6, 3.4))
    assert (rate.p10, rate.p90) == pytest.approx((3.2, 14.4))


def test_a_row_runs_long_enough_and_often_enough() -> None:
    calls: list[str] = []
    taken = time_requests(lambda: calls.append("work"), Effort(0.0, 4), lambda: calls.append("prepare"))
    assert len(taken) == 4  # and one before, to warm up
    assert calls == ["prepare", "work"] * 5
    assert sum(time_requests(lambda: time.sleep(0.002), Effort(0.02, 1))) >= 0.02


def test_what_is_prepared_is_off_the_clock_and_does_not_go_on_for_ever() -> None:
    taken = time_requests(lambda: None, Effort(0.004, 2), lambda: time.sleep(0.005))
    assert max(taken) < 0.005 and 2 <= len(taken) <= 5
