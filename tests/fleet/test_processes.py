"""Real worker processes: they end with the trusted process, see nothing of its environment, and reach no terminal."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from slalom.errors import DeviceError, IntegrityError
from slalom.fleet.spawned import SpawnedDevice
from slalom.link.message import SHM_FOLDER, SHM_PREFIX
from slalom.session import Session
from tests.cli.running import worker
from tests.devices import case_of, plan_of, same
from tests.fleet.sources import ROOT, nothing_leaks

pytest.importorskip("torch")

IMAGES, EXPECTED = case_of("residual", 3)

TRUSTED = """
import sys, time
from slalom.session import Session
from tests.devices import case_of, plan_of
images, expected = case_of("residual", 3)
session = Session(plan_of("residual"), device=["spawn"] * int(sys.argv[1]), protection="private")
print(*(life.device.pid for life in session._crew.lives), flush=True)
while True:
    session.run(images)
"""


def pid_of(session: Session) -> int:
    device = session._crew.lives[0].device
    assert isinstance(device, SpawnedDevice) and device.pid is not None
    return device.pid


def is_there(process: int) -> bool:
    """Whether a process runs; one that waits to be collected does not."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.parametrize("count", [1, 2])
def test_killing_the_trusted_process_leaves_nothing(count: int) -> None:
    """In the middle of requests, by SIGKILL: no worker and no shared memory two seconds later."""
    before = set(SHM_FOLDER.glob(f"{SHM_PREFIX}*"))
    command = [sys.executable, "-c", TRUSTED, str(count)]
    with subprocess.Popen(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": os.pathsep.join([*sys.path, str(ROOT)])},
                          stdout=subprocess.PIPE, text=True) as running:  # fmt: skip
        assert running.stdout is not None
        workers = [int(word) for word in running.stdout.readline().split()]
        assert len(workers) == count and all(is_there(process) for process in workers)
        time.sleep(0.2)
        running.kill()
    end = time.monotonic() + 2
    while any(is_there(process) for process in workers) and time.monotonic() < end:
        time.sleep(0.02)
    assert not any(is_there(process) for process in workers)
    assert set(SHM_FOLDER.glob(f"{SHM_PREFIX}*")) == before


def test_a_worker_outlives_the_thread_that_opened_its_session() -> None:
    """The kernel ends a worker with the thread that started it: that one is the worker's own."""
    opened: list[Session] = []
    thread = threading.Thread(target=lambda: opened.append(Session(plan_of("residual"))))
    thread.start()
    thread.join(60)
    time.sleep(0.3)
    with opened[0] as session:
        assert same(session.run(IMAGES), EXPECTED)


def test_a_worker_sees_no_secret_of_the_environment_and_holds_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLALOM_TEST_SECRET", "hunter2")
    with nothing_leaks(), Session(plan_of("residual")) as session:
        folder = Path(f"/proc/{pid_of(session)}")
        environment = (folder / "environ").read_bytes()
        assert b"hunter2" not in environment and b"PATH=" in environment
        targets = {entry.name: str(entry.readlink()) for entry in (folder / "fd").iterdir()}
        assert {targets[name] for name in ("0", "1", "2")} == {"/dev/null"}
        others = [target for name, target in targets.items() if name not in ("0", "1", "2")]
        assert [target.split(":")[0] for target in others].count("socket") == 1
        assert all(target.startswith(("socket:", "/memfd:slalom-link", "anon_inode:")) for target in others), others


def test_a_worker_that_is_killed_is_replaced() -> None:
    with Session(plan_of("residual"), on_failure="retry") as session:
        first = pid_of(session)
        os.kill(first, signal.SIGKILL)
        assert same(session.run(IMAGES), EXPECTED)
        assert pid_of(session) != first and not is_there(first)
        assert session.report.incidents[0].error == "DeviceError"


def test_a_cheating_worker_is_refused() -> None:
    with nothing_leaks(), Session(plan_of("residual"), attack="flip_element") as session:
        try:
            session.run(IMAGES)
        except IntegrityError as error:
            assert error.step in str(error)
        else:
            pytest.fail("a lie came through")


@pytest.mark.parametrize("listen", ["unix", "tcp"])
def test_a_worker_that_runs_serves_one_session_after_another(listen: str, tmp_path: Path) -> None:
    plan, path = plan_of("residual"), tmp_path / "plan.slalom"
    plan.save(path)
    place = f"unix:{tmp_path / 'w'}" if listen == "unix" else "tcp:127.0.0.1:0"
    more = ("--allow-shm",) if listen == "tcp" else ()
    with worker(path, place, *more) as endpoint:
        for bulk in ("memfd", "inline") if listen == "unix" else ("shm", "inline"):
            for level in ("verified", "private"):
                with Session(plan, device=endpoint, bulk=bulk, protection=level) as session:
                    assert same(session.run(IMAGES), EXPECTED)
        with Session(plan, device=endpoint), pytest.raises(DeviceError, match="serves somebody else"):
            Session(plan, device=endpoint)
        with pytest.raises(DeviceError, match="another plan"):
            Session(plan_of("dense"), device=endpoint)
    with pytest.raises(DeviceError, match="no worker at"):
        Session(plan, device=endpoint, timeout_seconds=1)
