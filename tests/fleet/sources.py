"""Workers for tests: light processes that go wrong as they are told, one after another; and what a process holds."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from slalom.link.message import SHM_FOLDER, SHM_PREFIX, Bulk
from slalom.link.port import DevicePort
from slalom.link.remote import LinkOptions, RemoteDevice
from slalom.plan import Plan

ROOT = Path(__file__).parents[2]
TIMEOUT_SECONDS = 1.0


class LightDevice(RemoteDevice):
    """A `faulty_worker` process behind a link."""

    def __init__(self, graph: str, fault: str, step: str, times: int, timeout_seconds: float) -> None:
        super().__init__(self._start, LinkOptions(Bulk.MEMFD, 2, timeout_seconds))
        self._told = (graph, fault, step, str(times))
        self.process: subprocess.Popen[bytes] | None = None

    def _start(self, plan: Plan) -> socket.socket:
        ours, theirs = socket.socketpair()
        with theirs:
            command = [sys.executable, "-m", "tests.fleet.faulty_worker", str(theirs.fileno()), *self._told]
            self.process = subprocess.Popen(
                command, cwd=ROOT, pass_fds=[theirs.fileno()], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
        return ours

    def close(self) -> None:
        super().close()
        if self.process is not None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait(10)


class LightSource:
    """Gives a worker for each of `faults` in turn, "none" for an honest one; then honest ones for ever if `fresh`."""

    def __init__(
        self, graph: str, faults: list[str], step: str, *, times: int = 1, fresh: bool = True, name: str = "light"
    ) -> None:
        self._graph, self._faults, self._step, self._times = graph, list(faults), step, times
        self._fresh, self._name = fresh, name
        self.opened: list[LightDevice] = []
        self.timeout_seconds = TIMEOUT_SECONDS

    @property
    def name(self) -> str:
        return self._name

    @property
    def fresh(self) -> bool:
        return self._fresh

    def open(self) -> DevicePort:
        fault = self._faults.pop(0) if self._faults else "none"
        device = LightDevice(self._graph, fault, self._step, self._times, self.timeout_seconds)
        self.opened.append(device)
        return device


def children() -> set[int]:
    """The processes that this one started and that are still there."""
    own = str(os.getpid())
    found = set()
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and (entry / "stat").read_text().rpartition(")")[2].split()[1] == own:
                found.add(int(entry.name))
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


class Held(NamedTuple):
    """Children, open descriptors, files of /dev/shm, and threads of links and workers."""

    children: set[int]
    descriptors: int
    names: set[str]
    threads: set[str]


def held() -> Held:
    """What this process holds now."""
    shared = {path.name for path in SHM_FOLDER.glob(f"{SHM_PREFIX}*")}
    names = ("slalom-link", "slalom-device", "slalom-keeper")
    threads = {str(thread.ident) for thread in threading.enumerate() if thread.name.startswith(names)}
    return Held(children(), len(list(Path("/proc/self/fd").iterdir())), shared, threads)


@contextmanager
def nothing_leaks() -> Iterator[None]:
    """What a process holds afterwards is what it held before."""
    import gc
    import time

    gc.collect()
    before = held()
    yield
    end = time.monotonic() + 5
    while not _is_no_more(held(), before) and time.monotonic() < end:
        gc.collect()
        time.sleep(0.05)
    after = held()
    assert _is_no_more(after, before), (after, before)


def _is_no_more(now: Held, before: Held) -> bool:
    """Whether nothing was added; files of /dev/shm are the machine's, and those of others may have gone meanwhile."""
    return now.names <= before.names and now._replace(names=before.names) == before
