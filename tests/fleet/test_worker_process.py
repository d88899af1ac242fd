"""How a worker process starts or does not, what it is told and holds, and that it ends whatever strikes it."""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

import pytest

pytest.importorskip("torch")

from slalom.errors import DeviceError
from slalom.fleet import process as fleet_process
from slalom.fleet.process import WorkerProcess, start_error
from slalom.fleet.roster import LinkChoice, make_source
from slalom.fleet.spawned import SpawnedDevice
from slalom.plan import Plan
from slalom.session import Session
from slalom.worker.options import StartFailure, WorkerOptions
from tests.devices import case_of, plan_of, same
from tests.fleet.sources import nothing_leaks

IMAGES, EXPECTED = case_of("residual", 4)
CHOICE = LinkChoice("auto", 1, 20.0, WorkerOptions(isolation="off"))
ALLOWED = ("PATH", "LANG", "LC_ALL", "TZ", "LD_LIBRARY_PATH")
ALLOWED_PREFIXES = ("GOMP_", "KMP_", "CUDA_", "NVIDIA_", "OMP_", "MKL_", "OPENBLAS_")


def worker_of(session: Session) -> int:
    """The process of a session's first worker."""
    device = session._crew.lives[0].device
    assert isinstance(device, SpawnedDevice) and device.pid is not None
    return device.pid


def is_running(pid: int) -> bool:
    """Whether a process is there and waits for nobody to collect it."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.skipif(os.geteuid() != 0, reason="only root reads what a confined process was told")
def test_a_worker_is_told_what_is_on_the_list_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """And it has a session of its own, which no keyboard reaches."""
    for name in ("SECRET_TOKEN", "PYTHONSTARTUP", "LD_AUDIT_NOT", "HOME", "OMP_WAIT_POLICY"):
        monkeypatch.setenv(name, "of nobody's business")
    with Session(plan_of("residual"), threads=1) as session:
        pid = worker_of(session)
        content = Path(f"/proc/{pid}/environ").read_bytes()
        assert os.getsid(pid) == pid != os.getsid(0)
    names = {entry.partition(b"=")[0].decode() for entry in content.split(b"\0") if entry}
    assert "OMP_WAIT_POLICY" in names
    assert all(name in ALLOWED or name.startswith(ALLOWED_PREFIXES) for name in names), names


# ---------------------------------------------------------------- starts that fail


def open_spawned(options: WorkerOptions) -> None:
    """What `Session` does to a spawned worker first."""
    device = make_source("spawn", replace(CHOICE, worker=options)).open()
    try:
        device.load(plan_of("residual"))
    finally:
        device.close()


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (WorkerOptions(isolation="off", attack="kindness"), "device cannot be had"),
        (WorkerOptions(isolation="off", attack="zero", attack_step="nowhere"), "device cannot be had"),
        (WorkerOptions(isolation="off", device="tpu"), "device cannot be had"),
        (WorkerOptions(isolation="much"), "its options are of no use"),
    ],
)
def test_a_worker_that_cannot_start_says_why_in_one_line(options: WorkerOptions, text: str) -> None:
    with nothing_leaks():
        try:
            open_spawned(options)
        except DeviceError as error:
            line = str(error)
    assert text in line and "\n" not in line


def test_a_plan_that_is_damaged_on_the_way(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = plan_of("residual").to_bytes()

    def write(_: Plan, file: BinaryIO) -> None:
        file.write(whole[:-9])

    monkeypatch.setattr(Plan, "write", write)
    with nothing_leaks(), pytest.raises(DeviceError, match="its plan is of no use"):
        Session(plan_of("residual"), threads=1)


def test_an_interpreter_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fleet_process, "worker_command", lambda options: ["/nowhere/python"])
    with nothing_leaks(), pytest.raises(DeviceError, match="the worker cannot be started: No such file"):
        Session(plan_of("residual"), threads=1)


@pytest.mark.parametrize("failure", StartFailure)
def test_every_code_of_a_failed_start_has_words(failure: StartFailure) -> None:
    error = start_error(failure)
    assert isinstance(error, DeviceError) and "\n" not in str(error)


@pytest.mark.parametrize("code", [0, 1, 2, 63, 70, -9])
def test_no_other_code_is_taken_for_a_failed_start(code: int) -> None:
    assert start_error(code) is None


# ---------------------------------------------------------------- ends


@pytest.mark.parametrize("blow", [signal.SIGKILL, signal.SIGSTOP, signal.SIGSEGV])
def test_a_worker_that_is_struck_between_requests(blow: signal.Signals) -> None:
    with (
        nothing_leaks(),
        Session(plan_of("residual"), threads=1, on_failure="retry", timeout_seconds=2) as session,
    ):
        first = worker_of(session)
        os.kill(first, blow)
        assert same(session.run(IMAGES), EXPECTED)
        assert len(session.report.incidents) == 1
        assert worker_of(session) != first and not is_running(first)


def test_a_worker_that_does_not_end_by_itself_is_killed() -> None:
    with nothing_leaks():
        session = Session(plan_of("residual"), threads=1)
        pid = worker_of(session)
        os.kill(pid, signal.SIGSTOP)
        session.close()
        assert not is_running(pid)


def test_ending_a_worker_twice_is_ending_it() -> None:
    with nothing_leaks():
        worker = WorkerProcess(plan_of("residual"), WorkerOptions(isolation="off"))
        worker.end(10)
        worker.end(10)
        worker.kill()
        assert not is_running(worker.pid)
