"""The first code of a worker process. LOAD-BEARING: it imports neither NumPy nor torch before it is confined, for the
confinement of files holds for threads that start after it, and both start threads when they are imported."""

from __future__ import annotations

import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from slalom.errors import DeviceError, SlalomError
from slalom.isolation.confine import Confinement, begin_confinement
from slalom.isolation.level import parse_isolation
from slalom.link.endpoint import listen, parse_endpoint
from slalom.link.message import SHM_FOLDER
from slalom.worker.options import StartFailure, WorkerOptions, decode_options

if TYPE_CHECKING:
    from slalom.worker.program import Program

_INTERRUPTED = 130


def main(arguments: list[str]) -> int:
    """Runs a worker with the options in its one argument; returns its exit code, once everything is written."""
    code = _run(arguments)
    sys.stdout.flush()
    sys.stderr.flush()
    return code


def _run(arguments: list[str]) -> int:
    by_hand = True
    try:
        with _stage(StartFailure.OPTIONS):
            options = decode_options(arguments[0] if len(arguments) == 1 else "")
            by_hand = options.link_descriptor is None
            level = parse_isolation(options.isolation)
            place = None if options.listen is None else parse_endpoint(options.listen)
        with _stage(StartFailure.PLACE):
            listener = None if place is None else listen(place)
        with _stage(StartFailure.ISOLATION):
            confinement = begin_confinement(
                level,
                readable=[] if options.plan is None else [Path(options.plan)],
                writable=[SHM_FOLDER] if options.allow_shm else [],
                keep=_descriptors(options, listener),
                parent=options.parent,
                gpu=options.device == "cuda",
                compiles=options.device == "cuda",
            )
        _load(options, confinement).serve(listener)
    except _StoppedError as stopped:
        return stopped.exit_code if by_hand else stopped.failure
    except KeyboardInterrupt:
        return _INTERRUPTED
    return 0


class _StoppedError(Exception):
    """A start that failed, and was explained on stderr."""

    def __init__(self, failure: StartFailure, exit_code: int) -> None:
        super().__init__(failure)
        self.failure = failure
        self.exit_code = exit_code


@contextmanager
def _stage(failure: StartFailure) -> Iterator[None]:
    """Explains a refusal to who reads stderr; whoever started this worker sees the number alone."""
    try:
        yield
    except SlalomError as error:
        sys.stderr.write(f"slalom: {error}\n" + (f"  hint: {error.hint}\n" if error.hint else ""))
        raise _StoppedError(failure, error.exit_code) from error
    except ModuleNotFoundError as error:
        sys.stderr.write(f"slalom: a worker needs {error.name}, which is not installed\n")
        sys.stderr.write("  hint: install the device extra, see the README\n")
        raise _StoppedError(StartFailure.PACKAGE, DeviceError.exit_code) from error


def _load(options: WorkerOptions, confinement: Confinement) -> Program:
    with _stage(StartFailure.PLAN):
        from slalom.worker.program import Program, load_plan

        plan = load_plan(options)
    with _stage(StartFailure.DEVICE):
        program = Program(options, plan)
    with _stage(StartFailure.ISOLATION):
        program.seal(confinement)
    return program


def _descriptors(options: WorkerOptions, listener: socket.socket | None) -> list[int]:
    kept = [options.plan_descriptor, options.link_descriptor, None if listener is None else listener.fileno()]
    return [descriptor for descriptor in kept if descriptor is not None]
