"""A device in a confined worker process of its own."""

from __future__ import annotations

import socket

from slalom.errors import DeviceError
from slalom.fleet.process import WorkerProcess
from slalom.link.remote import LinkOptions, RemoteDevice
from slalom.plan import Plan
from slalom.worker.options import WorkerOptions

_EXPLANATION_SECONDS = 2.0


class SpawnedDevice(RemoteDevice):
    """Starts a worker at `load`, and ends it at `close`, however it behaves."""

    def __init__(self, worker: WorkerOptions, options: LinkOptions) -> None:
        super().__init__(self._start, options)
        self._worker = worker
        self._patience_seconds = options.timeout_seconds
        self._process: WorkerProcess | None = None

    @property
    def pid(self) -> int | None:
        """The worker's process, None before `load`."""
        return None if self._process is None else self._process.pid

    def load(self, plan: Plan) -> None:
        """Starts the worker and loads the plan. Raises DeviceError, saying why the worker did not start."""
        try:
            super().load(plan)
        except DeviceError as error:
            reason = None if self._process is None else self._process.why_it_ended(_EXPLANATION_SECONDS)
            raise error if reason is None else reason from error

    def close(self) -> None:
        """Ends the connection and the worker; may be called twice."""
        super().close()
        if self._process is not None:
            self._process.end(self._patience_seconds)

    def _start(self, plan: Plan) -> socket.socket:
        self._process = WorkerProcess(plan, self._worker)
        return self._process.stream
