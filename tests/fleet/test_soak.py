"""Many requests with a fault in one of ten: every answer right or a named error; memory and descriptors flat."""

from __future__ import annotations

import gc
import random
from collections import Counter
from pathlib import Path

import pytest

from slalom.bench.memory import resident_bytes
from slalom.errors import DeviceError, IntegrityError, WireError
from slalom.reporting import Outcome
from slalom.session import Session
from tests.devices import case_of, linear_steps_of, plan_of, same
from tests.fleet.faulty_worker import FAULTS
from tests.fleet.sources import TIMEOUT_SECONDS, LightDevice, children

GRAPH = "residual"
STEPS = linear_steps_of(GRAPH)
QUICK = tuple(fault for fault in FAULTS if fault not in ("hangs", "stops", "answers_late", "stops_half_way"))
GROWTH = 24 * 2**20  # bytes that a process may grow by: the allocator's own


class Unreliable:
    """Gives workers of which each goes wrong after some ten answers of a step, a few of them by falling silent."""

    name, fresh = "unreliable", True

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self.faults: Counter[str] = Counter()

    def open(self) -> LightDevice:
        silent = self._random.random() < 0.05  # each costs the timeout
        fault = self._random.choice(("hangs", "stops", "answers_late", "stops_half_way") if silent else QUICK)
        times = 1 + int(self._random.expovariate(1 / 9))
        self.faults[fault] += 1
        return LightDevice(GRAPH, fault, self._random.choice(STEPS), times, TIMEOUT_SECONDS)


def soak(requests: int, on_failure: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    """Runs the requests; what came of them, and what the process held after a tenth of them and at the end."""
    source = Unreliable(seed=requests)
    monkeypatch.setattr("slalom.session.find_source", lambda place, choice: source)
    outcomes: Counter[str] = Counter()
    figures: dict[str, object] = {}
    options = {
        "threads": 1,
        "micro_batches": 1,
        "timeout_seconds": TIMEOUT_SECONDS,
        "isolation": "off",
        "on_failure": on_failure,
    }
    others = len(children())  # such as the resource tracker that an earlier test's processes left
    with Session(plan_of(GRAPH), **options) as session:
        for request in range(requests):
            images, expected = case_of(GRAPH, 1 + request % 3, seed=request % 7)
            try:
                assert same(session.run(images), expected)
                outcomes["right"] += 1
            except (IntegrityError, WireError, DeviceError) as error:  # three workers in a row went wrong
                assert on_failure == "retry"
                outcomes[type(error).__name__] += 1
            if request == requests // 10:
                figures["start"] = measure()
        incidents = session.report.incidents
        figures |= {"others": others, "end": measure(), "incidents": len(incidents), "faults": dict(source.faults)}
        assert {incident.outcome for incident in incidents} <= {
            Outcome.RETRIED if on_failure == "retry" else Outcome.COMPUTED_INSIDE,
            Outcome.RAISED,
            Outcome.LEFT_OUT,
        }
        assert outcomes["right"] >= 0.97 * requests - 1
    return figures | {"outcomes": dict(outcomes)}


def measure() -> tuple[int, int, int]:
    """Resident bytes, open descriptors, children."""
    gc.collect()
    return resident_bytes()[0], len(list(Path("/proc/self/fd").iterdir())), len(children())


def check_flat(figures: dict[str, object]) -> None:
    start, end, others = figures["start"], figures["end"], figures["others"]
    assert isinstance(start, tuple) and isinstance(end, tuple) and isinstance(others, int)
    assert end[0] - start[0] < GROWTH
    assert abs(end[1] - start[1]) <= 2
    assert end[2] <= others + 1


@pytest.mark.parametrize("on_failure", ["retry", "enclave"])
def test_a_short_soak(on_failure: str, monkeypatch: pytest.MonkeyPatch) -> None:
    figures = soak(40, on_failure, monkeypatch)
    assert figures["incidents"]
    check_flat(figures)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("on_failure", ["retry", "enclave"])
def test_a_long_soak(on_failure: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """1,000 requests each way."""
    figures = soak(1000, on_failure, monkeypatch)
    print(on_failure, figures)
    check_flat(figures)
