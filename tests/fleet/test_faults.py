"""A worker that dies, hangs, answers late, twice, with garbage or with a lie: a named error, or the right answer from
another worker or from inside; never a wrong output, and nothing left behind."""

from __future__ import annotations

import threading
import time
from typing import Any

import numpy as np
import pytest

from slalom.errors import ApiMisuse, DeviceError, IntegrityError, SlalomError, WireError
from slalom.link.remote import RemoteDevice
from slalom.reporting import Outcome
from slalom.session import MAXIMUM_ATTEMPTS, Session
from slalom.trusted.soundness import bits, union_error
from tests.devices import case_of, linear_steps_of, plan_of, same
from tests.fleet.faulty_worker import FAULTS
from tests.fleet.sources import TIMEOUT_SECONDS, LightSource, nothing_leaks

GRAPH = "residual"
IMAGES, EXPECTED = case_of(GRAPH, 3)
STEPS = linear_steps_of(GRAPH)
PLACES = {"first": STEPS[0], "middle": STEPS[len(STEPS) // 2], "last": STEPS[-1]}
LEVELS = [
    ("device", "ahead"), ("verified", "ahead"), ("verified", "layerwise"), ("blinded", "ahead"), ("private", "ahead"),
]  # fmt: skip
ERRORS = (IntegrityError, WireError, DeviceError)


def open_session(sources: list[LightSource], monkeypatch: pytest.MonkeyPatch, **more: Any) -> Session:
    """A session whose places are these sources."""
    queue = list(sources)
    monkeypatch.setattr("slalom.session.find_source", lambda place, choice: queue.pop(0))
    options = {"threads": 1, "micro_batches": 1, "timeout_seconds": TIMEOUT_SECONDS, "isolation": "off", **more}
    return Session(plan_of(GRAPH), device=["spawn"] * len(sources), **options)


def refusal(session: Session) -> tuple[type[BaseException], str]:
    """How a request is refused; its traceback, which would keep the memory of the link, is let go."""
    try:
        session.run(IMAGES)
    except ERRORS as error:
        return type(error), str(error)
    pytest.fail("the request was answered")


def seen(fault: str, level: str) -> bool:
    """Whether a level refuses a fault: who does not check does not see a lie of value, by design."""
    return fault != "lies" or level in ("verified", "private")


@pytest.mark.parametrize(
    "place", ["middle", pytest.param("first", marks=pytest.mark.slow), pytest.param("last", marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize(
    ("level", "schedule"),
    [
        level if level[0] in ("verified", "private") else pytest.param(*level, marks=pytest.mark.slow)
        for level in LEVELS
    ],
)
def test_a_fault_ends_in_a_named_error(
    level: str, schedule: str, fault: str, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the second request, within the timeout, and the session is over."""
    if level == "device" and place != "middle":
        pytest.skip("at this level one answer comes for the whole network")
    source = LightSource(GRAPH, [fault], PLACES[place], times=2)
    with nothing_leaks(), open_session([source], monkeypatch, protection=level, schedule=schedule) as session:
        assert same(session.run(IMAGES), EXPECTED)
        begin = time.monotonic()
        if not seen(fault, level):
            session.run(IMAGES)  # `blinded` and `device` promise nothing of the values
            return
        kind, text = refusal(session)
        assert time.monotonic() - begin < TIMEOUT_SECONDS + 5
        assert "\n" not in text
        assert (fault == "lies") == (kind is IntegrityError)
        with pytest.raises(ApiMisuse, match="the session is over"):
            session.run(IMAGES)
        assert session.report.incidents[-1].outcome is Outcome.RAISED


@pytest.mark.parametrize(
    ("level", "schedule", "on_failure"),
    [
        ("verified", "ahead", "retry"),
        ("private", "ahead", "enclave"),
        pytest.param("verified", "ahead", "enclave", marks=pytest.mark.slow),
        pytest.param("private", "ahead", "retry", marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize("fault", FAULTS)
def test_a_session_goes_on_after_a_fault(
    level: str, schedule: str, fault: str, on_failure: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The right answer, an incident that says how it came about, and a fresh worker for the next request."""
    source = LightSource(GRAPH, [fault], PLACES["middle"])
    options = {"protection": level, "schedule": schedule, "on_failure": on_failure}
    with nothing_leaks(), open_session([source], monkeypatch, **options) as session:
        for _ in range(2):
            assert same(session.run(IMAGES), EXPECTED)
        (incident,) = session.report.incidents
        assert incident.error in {kind.__name__ for kind in ERRORS} and incident.worker == "light"
        assert incident.outcome is (Outcome.RETRIED if on_failure == "retry" else Outcome.COMPUTED_INSIDE)
        assert len(source.opened) == 2
        exposed = 3 * (
            3 if on_failure == "retry" else 2
        )  # the failed attempt counts, what was computed inside does not
        assert session.report.exposed == exposed
        assert session.report.soundness_bits == pytest.approx(bits(union_error(session.policy, len(STEPS), exposed)))


def test_a_retry_hides_the_input_under_other_masks(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second worker sees words that have nothing to do with those that the first saw."""
    sent: list[np.ndarray] = []
    submit = RemoteDevice.submit

    def record(self: RemoteDevice, names: Any, words: np.ndarray) -> Any:
        sent.append(words.copy())
        return submit(self, names, words)

    monkeypatch.setattr(RemoteDevice, "submit", record)
    source = LightSource(GRAPH, ["dies"], STEPS[0])
    with open_session([source], monkeypatch, on_failure="retry") as session:
        assert same(session.run(IMAGES), EXPECTED)
    first, second = sent[0], sent[1]  # the input, once to each worker
    assert first.shape == second.shape
    assert np.count_nonzero(first == second) < 3


def test_retries_come_to_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    source = LightSource(GRAPH, ["lies"] * 10, STEPS[0])
    with open_session([source], monkeypatch, on_failure="retry") as session:
        with pytest.raises(IntegrityError):
            session.run(IMAGES)
        outcomes = [incident.outcome for incident in session.report.incidents]
        assert outcomes == [Outcome.RETRIED] * (MAXIMUM_ATTEMPTS - 1) + [Outcome.RAISED]


def test_requests_go_to_the_healthy_and_a_liar_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    liar = LightSource(GRAPH, ["lies"], STEPS[1], fresh=False, name="liar")
    honest = LightSource(GRAPH, [], STEPS[1], fresh=False, name="honest")
    with nothing_leaks(), open_session([honest, liar], monkeypatch, on_failure="retry") as session:
        for _ in range(5):
            assert same(session.run(IMAGES), EXPECTED)
        assert [worker.name for worker in session.workers] == ["honest"]
        assert [incident.worker for incident in session.report.incidents] == ["liar"]
        assert (len(liar.opened), len(honest.opened)) == (1, 1)


@pytest.mark.parametrize("on_failure", ["retry", "enclave"])
def test_when_all_are_gone(on_failure: str, monkeypatch: pytest.MonkeyPatch) -> None:
    sources = [LightSource(GRAPH, ["dies"], STEPS[0], fresh=False) for _ in range(2)]
    with open_session(sources, monkeypatch, on_failure=on_failure) as session:
        if on_failure == "enclave":
            for _ in range(4):
                assert same(session.run(IMAGES), EXPECTED)
            assert session.workers == ()
            return
        with pytest.raises(DeviceError):
            session.run(IMAGES)
        with pytest.raises(ApiMisuse, match="the session is over"):
            session.run(IMAGES)


def test_several_workers_serve_several_threads_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both workers wait in one step at the same time: neither request waited for the other."""
    sources = [LightSource(GRAPH, ["answers_late"], STEPS[2]) for _ in range(2)]
    for source in sources:
        source.timeout_seconds = 30.0
    wrong: list[bool] = []
    with open_session(sources, monkeypatch, timeout_seconds=30.0) as session:
        threads = [
            threading.Thread(target=lambda: wrong.append(not same(session.run(IMAGES), EXPECTED))) for _ in range(2)
        ]
        begin = time.monotonic()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert time.monotonic() - begin < 5.5  # each alone takes three seconds
    assert wrong == [False, False]


def test_bad_images_are_no_fault_of_a_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    with open_session([LightSource(GRAPH, [], STEPS[0])], monkeypatch, on_failure="retry") as session:
        with pytest.raises(SlalomError, match="hold NaN"):
            session.run(np.full_like(IMAGES, np.nan))
        assert same(session.run(IMAGES), EXPECTED)
        assert session.report.incidents == ()
