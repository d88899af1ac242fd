"""One confined worker process, from its start to its end: it never outlives the process that started it."""

from __future__ import annotations

import fcntl
import os
import socket
import subprocess
import threading
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import replace

from slalom.errors import DeviceError, SlalomError
from slalom.plan import Plan
from slalom.worker.boot import ENVIRONMENT_DEFAULTS, worker_command
from slalom.worker.options import StartFailure, WorkerOptions

# What an engine may want to know of the machine; whatever else is in the environment is none of a worker's business.
_ENVIRONMENT = ("PATH", "LANG", "LC_ALL", "TZ", "LD_LIBRARY_PATH")
_PREFIXES = ("CUDA_", "NVIDIA_", "OMP_", "GOMP_", "KMP_", "MKL_", "OPENBLAS_")
_UNUSABLE = {
    StartFailure.OPTIONS: "options are",
    StartFailure.PLAN: "plan is",
    StartFailure.PLACE: "place to listen is",
}
_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL


class WorkerProcess:
    """A worker that was started with one end of a socket pair; `stream` is the other end.

    A thread of its own starts it and waits for it: the worker is killed when that thread ends, and so when this
    process does, however it does.
    """

    def __init__(self, plan: Plan, options: WorkerOptions) -> None:
        self.stream, theirs = socket.socketpair()
        self._process: Future[subprocess.Popen[bytes]] = Future()
        self._exit_code: Future[int] = Future()
        with theirs, _PlanFile(plan) as plan_descriptor:
            told = replace(
                options,
                plan_descriptor=plan_descriptor,
                link_descriptor=theirs.fileno(),
                parent=os.getpid(),
            )
            threading.Thread(target=self._keep, args=(told,), name="slalom-keeper", daemon=True).start()
            try:
                self._process.result()
            except OSError as error:
                self.stream.close()
                raise DeviceError(f"the worker cannot be started: {error.strerror}") from error

    @property
    def pid(self) -> int:
        """The process."""
        return self._process.result().pid

    def why_it_ended(self, patience_seconds: float) -> SlalomError | None:
        """Why a worker could not start, by its exit code; None where it runs, or ended in another way."""
        try:
            code = self._exit_code.result(patience_seconds)
        except FutureTimeoutError:
            return None
        return start_error(code)

    def end(self, patience_seconds: float) -> None:
        """Closes the link, lets the worker end by itself for a moment, and kills it; may be called twice.

        Raises DeviceError where even that does not end it in time.
        """
        self.stream.close()
        try:
            self._exit_code.result(min(patience_seconds, 1.0))
        except FutureTimeoutError:
            self._process.result().kill()
            try:
                self._exit_code.result(patience_seconds)
            except FutureTimeoutError as error:
                raise DeviceError("a worker that was killed does not end") from error

    def kill(self) -> None:
        """Ends the worker at once."""
        self._process.result().kill()

    def _keep(self, options: WorkerOptions) -> None:
        try:
            process = _start(options)
        except BaseException as error:  # noqa: BLE001 - carried to the thread that waits, which raises it
            self._process.set_exception(error)
            return
        self._process.set_result(process)
        self._exit_code.set_result(process.wait())


def start_error(code: int) -> SlalomError | None:
    """The error in the exit code of a worker that did not start."""
    if code == StartFailure.PACKAGE:
        return DeviceError(
            "a worker needs torch, which is not installed", hint="install the device extra, see the README"
        )
    if code == StartFailure.ISOLATION:
        return DeviceError("the worker cannot be confined as strict demands", hint="slalom doctor says what is missing")
    if code == StartFailure.DEVICE:
        return DeviceError("the worker's device cannot be had", hint="slalom doctor says what is missing")
    if code in list(StartFailure):
        return DeviceError(f"the worker could not start: its {_UNUSABLE[StartFailure(code)]} of no use")
    return None


class _PlanFile:
    """A plan as a sealed memory file, for as long as a worker is started."""

    def __init__(self, plan: Plan) -> None:
        self._descriptor = os.memfd_create("slalom-plan", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            with os.fdopen(os.dup(self._descriptor), "wb") as file:
                plan.write(file)
            os.lseek(self._descriptor, 0, os.SEEK_SET)
            fcntl.fcntl(self._descriptor, fcntl.F_ADD_SEALS, _SEALS)
        except BaseException:
            os.close(self._descriptor)
            raise

    def __enter__(self) -> int:
        return self._descriptor

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)


def _start(options: WorkerOptions) -> subprocess.Popen[bytes]:
    kept = [options.plan_descriptor, options.link_descriptor]
    return subprocess.Popen(
        worker_command(options),
        env=_environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,  # LOAD-BEARING: a terminal shows what it is sent, and obeys some of it
        pass_fds=[descriptor for descriptor in kept if descriptor is not None],
        start_new_session=True,  # an interrupt from the keyboard is for the trusted side to handle
    )


def _environment() -> dict[str, str]:
    given = {name: value for name, value in os.environ.items() if name in _ENVIRONMENT or name.startswith(_PREFIXES)}
    return {**ENVIRONMENT_DEFAULTS, **given}
