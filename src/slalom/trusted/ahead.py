"""Claims of a device that runs whole networks ahead of the checks, matched with the steps that they are wanted for."""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Collection, Iterator, Sequence
from typing import Any

import numpy as np

from slalom.arithmetic.pieces import StreamedClaim
from slalom.errors import DeviceError, IntegrityError, SlalomError
from slalom.link.following import Coming
from slalom.link.port import Claim, DevicePort
from slalom.link.remote import RemoteDevice
from slalom.trusted.calls import device_failure, settle
from slalom.trusted.recorder import Side
from slalom.trusted.traffic import Traffic

Words = np.ndarray | StreamedClaim  # of a claim

QUEUE_LIMIT = 4

_STOP_TRIES = 40
_STOP_WAIT_SECONDS = 0.025
_END: Any = object()


class AheadLane:
    """A thread in which the device runs ahead of the checks; a full queue holds it back.

    Over a link too: what is asked and answered there is handled while the trusted side's pass holds no lock.
    """

    def __init__(
        self, device: DevicePort, activations: Sequence[np.ndarray], traffic: Traffic, steps: Collection[str]
    ) -> None:
        self._device = device
        self._steps = frozenset(steps)
        self._queue: queue.Queue[Claim | Coming | SlalomError | None] = queue.Queue(QUEUE_LIMIT)
        self._stopped = threading.Event()
        self._traffic = traffic
        self._thread = threading.Thread(target=self._run, args=(device, activations), name="slalom-device", daemon=True)
        self._thread.start()

    def claim_of(self, step: str, early: dict[str, Words], timeout_seconds: float) -> Words:
        """The claim of one step; claims that arrive before it wait in `early`, each step at most once."""
        while step not in early:
            claim = self._take(timeout_seconds)
            if claim is None:
                raise IntegrityError(f"the device ended before step {step!r}", step=step)
            if claim.step not in self._steps:  # else the device could fill the memory with claims of no step
                raise IntegrityError("the device answered a step that the plan does not have", step=step)
            if claim.step in early:
                raise IntegrityError("the device answered one step twice", step=step)
            early[claim.step] = claim.words
        return early.pop(step)

    def finish(self, timeout_seconds: float) -> None:
        """Takes the end of one micro-batch; anything else is a claim too many."""
        claim = self._take(timeout_seconds)
        if claim is not None:
            raise IntegrityError("the device sent more claims than there are steps", step=claim.step[:80])

    def settle(self) -> None:
        """Makes sure that a device behind a link has said no more than it was asked."""
        settle(self._device)

    def stop(self) -> None:
        """Lets the thread end: waits a little for it, and leaves a device that hangs to its daemon thread."""
        self._stopped.set()
        for _ in range(_STOP_TRIES):
            with contextlib.suppress(queue.Empty):
                self._queue.get_nowait()  # makes room, so that a full queue does not hold the thread
            self._thread.join(_STOP_WAIT_SECONDS)
            if not self._thread.is_alive():
                return

    def _take(self, timeout_seconds: float) -> Claim | Coming | None:
        try:
            item = self._queue.get(timeout=timeout_seconds)
        except queue.Empty as error:
            raise DeviceError(f"the device did not answer within {timeout_seconds:g} seconds") from error
        if isinstance(item, SlalomError):
            raise item
        return item

    def _run(self, device: DevicePort, activations: Sequence[np.ndarray]) -> None:
        try:
            for claim in self._claims(device, activations):
                self._queue.put(claim)
                if self._stopped.is_set():
                    return
        except BaseException as error:  # noqa: BLE001 - carried to the thread that waits, which raises it
            self._queue.put(device_failure(error))

    def _claims(self, device: DevicePort, activations: Sequence[np.ndarray]) -> Iterator[Claim | Coming | None]:
        """The claims of every micro-batch, None after each."""
        for activation in activations:
            self._traffic.sent(activation)
        if isinstance(device, RemoteDevice):
            yield from self._timed(device.follow(activations), 0)
            return
        for index, activation in enumerate(activations):
            # LOAD-BEARING: a copy, for the walk reads the activation while the device may write to its own
            yield from self._timed(device.run_ahead(activation.copy()), index)
            yield None

    def _timed(self, claims: Iterator[Claim | Coming | None], index: int) -> Iterator[Claim | Coming | None]:
        """The same claims, each counted with the time it was waited for; `index` is of the first micro-batch."""
        while True:
            begin = time.perf_counter()
            claim = next(claims, _END)
            if claim is _END:
                return
            if type(claim) is Coming and isinstance(self._device, RemoteDevice):
                self._traffic.received((claim.words,), 0.0)
                self._traffic.follow(claim.words, claim.step, index)
                yield claim
                continue
            if claim is not None and (type(claim) is not Claim or type(claim.step) is not str):
                raise DeviceError("the device sent something that is not a claim")
            end = time.perf_counter()
            self._traffic.received(() if claim is None else (claim.words,), end - begin)
            if claim is not None and claim.step in self._steps:
                self._traffic.record(claim.step, Side.DEVICE, index, begin, end)
            index += claim is None
            yield claim
