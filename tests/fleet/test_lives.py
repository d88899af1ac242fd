"""The lives of a session: who waits while a worker is replaced, what ends with the session, whose key is whose."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from slalom.errors import ApiMisuse, DeviceError, PrivacyError
from slalom.link.port import DevicePort
from slalom.plan import Plan
from slalom.plan.steps import Linear
from slalom.reporting import Outcome
from slalom.session import Session
from slalom.trusted.session import TrustedSession
from slalom.trusted.soundness import bits, union_error
from tests.devices import NumpyDevice, case_of, linear_steps_of, plan_of, same
from tests.fleet.sources import LightSource, nothing_leaks
from tests.link.serving import running

GRAPH = "residual"
IMAGES, EXPECTED = case_of(GRAPH, 4)
STEPS = linear_steps_of(GRAPH)
LEVELS = [
    ("device", "ahead"), ("verified", "ahead"), ("verified", "layerwise"), ("blinded", "ahead"), ("private", "ahead"),
]  # fmt: skip
SECONDS = 20.0


class Scripted(NumpyDevice):
    """Waits where it is told to, fails or lies in its first step if it shall, and remembers whether it was closed."""

    def __init__(self, *, fails: bool = False, lies: bool = False) -> None:
        self.fails, self.lies = fails, lies
        self.may_load, self.may_work = threading.Event(), threading.Event()
        self.may_load.set()
        self.may_work.set()
        self.working = threading.Event()
        self.loading = threading.Event()
        self.closed = False

    def load(self, plan: Plan) -> None:
        self.loading.set()
        self.may_load.wait(SECONDS)
        super().load(plan)

    def linear(self, step: Linear, words: np.ndarray) -> np.ndarray:
        self.working.set()
        self.may_work.wait(SECONDS)
        if self.fails:
            raise RuntimeError("of the device")
        claim = super().linear(step, words)
        claim.reshape(-1)[0] += self.lies
        return claim

    def close(self) -> None:
        self.closed = True


class Devices:
    """A source that gives these devices one after another."""

    def __init__(self, *devices: DevicePort, name: str = "scripted") -> None:
        self._devices = iter(devices)
        self.name = name
        self.fresh = len(devices) > 1

    def open(self) -> DevicePort:
        return next(self._devices)


def open_session(monkeypatch: pytest.MonkeyPatch, *sources: Any, **more: Any) -> Session:
    queue = list(sources)
    monkeypatch.setattr("slalom.session.find_source", lambda place, choice: queue.pop(0))
    options = {"threads": 1, "timeout_seconds": SECONDS, "isolation": "off", "on_failure": "retry", **more}
    return Session(plan_of(GRAPH), device=["spawn"] * len(sources), **options)


def in_a_thread(call: Callable[[], Any]) -> Future[Any]:
    """What a call gives or raises, in a thread of its own."""
    future: Future[Any] = Future()

    def fulfil() -> None:
        try:
            future.set_result(call())
        except BaseException as error:  # noqa: BLE001 - carried to the thread that waits, which raises it
            future.set_exception(error)

    threading.Thread(target=fulfil, daemon=True).start()
    return future


# ---------------------------------------------------------------- while a worker is replaced


def test_requests_wait_for_the_worker_that_takes_the_place_of_another(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also those of other threads: that there is no worker for a moment does not end the session."""
    slow = Scripted()
    slow.may_load.clear()
    with open_session(monkeypatch, Devices(Scripted(fails=True), slow)) as session:
        first = in_a_thread(lambda: session.run(IMAGES))
        assert slow.loading.wait(SECONDS)
        second = in_a_thread(lambda: session.run(IMAGES))
        with pytest.raises(TimeoutError):
            second.result(0.1)
        slow.may_load.set()
        assert same(first.result(SECONDS), EXPECTED) and same(second.result(SECONDS), EXPECTED)
        assert len(session.report.incidents) == 1


def test_a_session_that_is_closed_meanwhile_ends_the_new_worker_too(monkeypatch: pytest.MonkeyPatch) -> None:
    late = Scripted()
    late.may_load.clear()
    session = open_session(monkeypatch, Devices(Scripted(fails=True), late))
    request = in_a_thread(lambda: session.run(IMAGES))
    assert late.loading.wait(SECONDS)
    closing = in_a_thread(session.close)
    with pytest.raises(TimeoutError):
        closing.result(0.1)
    late.may_load.set()
    closing.result(SECONDS)
    assert late.closed and session.workers == ()
    with pytest.raises((ApiMisuse, DeviceError)):
        request.result(SECONDS)
    assert session.report.exposed == len(IMAGES)  # of the first worker, counted once


def test_a_request_for_which_no_other_worker_is_left_raises_what_happened_to_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It waits for a worker that is busy, which then fails too."""
    quick, slow = Scripted(fails=True), Scripted(fails=True)
    slow.may_work.clear()
    with open_session(monkeypatch, Devices(quick, name="quick"), Devices(slow, name="slow")) as session:
        requests = [in_a_thread(lambda: session.run(IMAGES)) for _ in range(2)]
        assert slow.working.wait(SECONDS) and quick.working.wait(SECONDS)
        slow.may_work.set()
        for request in requests:
            with pytest.raises(DeviceError, match="failed with RuntimeError"):
                request.result(SECONDS)
        assert {incident.outcome for incident in session.report.incidents} == {Outcome.RAISED}
        with pytest.raises(ApiMisuse, match="the session is over"):
            session.run(IMAGES)


@pytest.mark.parametrize("on_failure", ["fail", "retry", "enclave"])
def test_a_life_that_an_interrupt_ended_is_not_used_again(on_failure: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its secrets are gone, so its worker is ended too; the other worker serves all later requests."""
    devices = [Scripted(), Scripted()]
    with open_session(monkeypatch, *map(Devices, devices), on_failure=on_failure) as session:
        with pytest.MonkeyPatch.context() as interrupted:

            def interrupt(*_: object) -> None:
                raise KeyboardInterrupt

            interrupted.setattr(TrustedSession, "_run", interrupt)
            with pytest.raises(KeyboardInterrupt):
                session.run(IMAGES)
        assert [device.closed for device in devices].count(True) == 1
        assert len(session.workers) == 1
        for _ in range(3):
            assert same(session.run(IMAGES), EXPECTED)
        assert session.report.exposed == 4 * len(IMAGES)


def test_several_workers_share_the_trusted_sides_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests of several threads at once, each kernel call shared out: every answer is right."""
    images, expected = case_of("every_step", 3)
    queue = [Devices(Scripted()) for _ in range(3)]
    monkeypatch.setattr("slalom.session.find_source", lambda place, choice: queue.pop(0))
    with Session(plan_of("every_step"), device=["spawn"] * 3, threads=2, isolation="off") as session:
        requests = [in_a_thread(lambda: [session.run(images) for _ in range(5)]) for _ in range(3)]
        assert all(same(outputs, expected) for request in requests for outputs in request.result(60))


# ---------------------------------------------------------------- another life, another key


@pytest.mark.parametrize("place", ["first", "middle", "last"])
@pytest.mark.parametrize(("level", "schedule"), LEVELS)
@pytest.mark.parametrize("on_failure", ["retry", "enclave"])
def test_a_session_goes_on_after_a_fault_at_every_level_and_place(
    on_failure: str, level: str, schedule: str, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The right answer to the request that failed, its second, and to the next, from another worker under another key;
    the bound on a lie's success adds up over both lives, failed attempts counted."""
    step = {"first": STEPS[0], "middle": STEPS[len(STEPS) // 2], "last": STEPS[-1]}[place]
    source = LightSource(GRAPH, ["is_killed"], step, times=2)
    source.timeout_seconds = SECONDS
    options = {"protection": level, "schedule": schedule, "on_failure": on_failure, "micro_batches": 1}
    with nothing_leaks(), open_session(monkeypatch, source, **options) as session:
        assert same(session.run(IMAGES), EXPECTED)
        first = session._crew.lives[0]
        key = bytes(first.trusted._randomness._key.buffer)
        assert same(session.run(IMAGES), EXPECTED)
        second = session._crew.lives[0]
        assert second is not first and first.trusted.is_over
        assert bytes(second.trusted._randomness._key.buffer) != key
        with pytest.raises(PrivacyError):
            first.trusted._randomness.draw_stream()
        assert same(session.run(IMAGES), EXPECTED)
        assert [incident.outcome for incident in session.report.incidents] == [
            Outcome.RETRIED if on_failure == "retry" else Outcome.COMPUTED_INSIDE
        ]
        exposed = [2 * len(IMAGES), (2 if on_failure == "retry" else 1) * len(IMAGES)]
        assert session.report.exposed == sum(exposed)
        if session.policy.protection.checked:
            error = sum(union_error(session.policy, len(STEPS), count) for count in exposed)
            assert session.report.error == error
            assert session.report.soundness_bits == bits(error)
        else:
            assert session.report.soundness_bits == 0
        del first, second  # or they would hold what is counted


# ---------------------------------------------------------------- a liar that runs elsewhere


@pytest.mark.parametrize("on_failure", ["retry", "enclave"])
def test_a_liar_that_runs_elsewhere_is_never_connected_to_again(on_failure: str, tmp_path: Path) -> None:
    with (
        nothing_leaks(),
        running(Scripted(lies=True), tmp_path / "liar", plan_of(GRAPH)) as liar,
        running(Scripted(), tmp_path / "honest", plan_of(GRAPH)) as honest,
        Session(
            plan_of(GRAPH),
            device=[f"unix:{tmp_path / 'honest'}", f"unix:{tmp_path / 'liar'}"],
            on_failure=on_failure,
            isolation="off",
            threads=1,
        ) as session,
    ):
        for _ in range(6):
            assert same(session.run(IMAGES), EXPECTED)
        assert (len(liar), len(honest)) == (1, 1)
        (incident,) = session.report.incidents
        assert incident.worker == f"unix:{tmp_path / 'liar'}" and incident.error == "IntegrityError"
        assert [worker.name for worker in session.workers] == [f"unix:{tmp_path / 'honest'}"]


def test_when_every_worker_elsewhere_lied_nobody_is_left(tmp_path: Path) -> None:
    with (
        nothing_leaks(),
        running(Scripted(lies=True), tmp_path / "a", plan_of(GRAPH)) as first,
        running(Scripted(lies=True), tmp_path / "b", plan_of(GRAPH)) as second,
        Session(
            plan_of(GRAPH),
            device=[f"unix:{tmp_path / 'a'}", f"unix:{tmp_path / 'b'}"],
            on_failure="enclave",
            isolation="off",
            threads=1,
        ) as session,
    ):
        for _ in range(4):
            assert same(session.run(IMAGES), EXPECTED)
        assert (len(first), len(second)) == (1, 1)
        assert session.workers == () and len(session.report.incidents) == 2
