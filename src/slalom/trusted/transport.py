"""How a walk's asks reach the device: not at all, one exchange at a time, or behind a device that runs ahead.

The device works in its own thread, so that it and the trusted side are busy at once; several walks are in flight.
Every wait is bounded. Nothing here looks at what a claim holds.
"""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import Future
from functools import partial
from typing import Protocol

import numpy as np

from slalom.arithmetic.pieces import StreamedClaim
from slalom.errors import DeviceError, IntegrityError
from slalom.link.port import DevicePort
from slalom.link.remote import RemoteDevice
from slalom.link.ticket import Post
from slalom.trusted.ahead import AheadLane, Words
from slalom.trusted.calls import Answer, device_failure, settle, wait_for
from slalom.trusted.recorder import Side
from slalom.trusted.traffic import Traffic
from slalom.trusted.walk import Ask, Claims, WalkGenerator

Outputs = list[np.ndarray]
Collect = Callable[[float], Claims]  # waits so many seconds at most for claims that were asked for


class Carrier:
    """Carries asks to one device. `timeout_seconds` bounds every wait (DeviceError)."""

    def __init__(self, device: DevicePort, traffic: Traffic, timeout_seconds: float) -> None:
        self._device = device
        self._traffic = traffic
        self._timeout_seconds = timeout_seconds

    def exchange_all(self, walks: Sequence[WalkGenerator]) -> list[Outputs]:
        """Drives walks that exchange step by step, taking turns while the device works on the others' values."""
        outputs: list[Outputs] = [[] for _ in walks]
        lane = self._lane()
        turns: deque[tuple[int, WalkGenerator, Collect | None]]
        turns = deque((index, walk, None) for index, walk in enumerate(walks))
        try:
            while turns:
                index, walk, collect = turns.popleft()
                claims = None if collect is None else collect(self._timeout_seconds)
                try:
                    ask = self._advance(walk, claims, index)
                except StopIteration as finished:
                    outputs[index] = finished.value
                    continue
                turns.append((index, walk, lane.submit(ask, index)))
            lane.settle()
        finally:
            lane.stop()
        return outputs

    def _lane(self) -> _Lane:
        if isinstance(self._device, RemoteDevice):
            return _LinkLane(self._device, self._traffic)
        return _ComputeLane(self._device, self._traffic)

    def follow(
        self, walks: Sequence[WalkGenerator], activations: Sequence[np.ndarray], steps: Collection[str]
    ) -> list[Outputs]:
        """Drives walks behind a device that runs each whole network ahead, claims waiting in a short queue.

        `steps` names every linear step of the plan: no claim of another is kept.
        """
        lane = AheadLane(self._device, activations, self._traffic, steps)
        try:
            outputs = [self._follow_one(walk, lane, index) for index, walk in enumerate(walks)]
            lane.settle()
            return outputs
        finally:
            lane.stop()

    def _follow_one(self, walk: WalkGenerator, lane: AheadLane, index: int) -> Outputs:
        early: dict[str, Words] = {}
        claims: Claims | None = None
        while True:
            try:
                ask = self._advance(walk, claims, index)
            except StopIteration as finished:
                if early:
                    name = next(iter(early))
                    raise IntegrityError("the device answered a step that was not asked", step=name) from None
                outputs: Outputs = finished.value
                lane.finish(self._timeout_seconds)
                return outputs
            claims = [lane.claim_of(step.name, early, self._timeout_seconds) for step in ask.steps]

    def _advance(self, walk: WalkGenerator, claims: Claims | None, index: int) -> Ask:
        begin, leads_to = time.perf_counter(), "output"
        try:
            ask = next(walk) if claims is None else walk.send(claims)
            leads_to = ask.steps[0].name
            return ask
        finally:
            end = time.perf_counter()
            self._traffic.trusted_seconds += end - begin
            self._traffic.record(leads_to, Side.TRUSTED, index, begin, end)

    def run_whole(self, activations: Sequence[np.ndarray]) -> list[Sequence[object]]:
        """What the device answers for each whole network: nothing of it is known."""
        lane = _ComputeLane(self._device, self._traffic)
        try:
            outputs = [wait_for(lane.submit_whole(activation), self._timeout_seconds) for activation in activations]
            settle(self._device)
            return outputs
        finally:
            lane.stop()


class _Lane(Protocol):
    """How exchanges reach one device."""

    def submit(self, ask: Ask, index: int = 0) -> Collect:
        """Sends an ask of a micro-batch on its way, and gives the function that waits for its claims."""

    def settle(self) -> None:
        """Makes sure that the device has said no more than it was asked."""

    def stop(self) -> None:
        """Ends it."""


class _LinkLane:
    """Exchanges over a link, which has a reader of its own: an ask is sent by who makes it."""

    def __init__(self, device: RemoteDevice, traffic: Traffic) -> None:
        self._device = device
        self._traffic = traffic

    def submit(self, ask: Ask, index: int = 0) -> Collect:
        """Sends an ask that was not posted; several may be on their way."""
        begin = time.perf_counter()
        if isinstance(ask.words, Post):
            self._traffic.sent(ask.words)
            self._traffic.waited(ask.words.words.waited)
            ticket = ask.words.ticket
            ticket.start()
        else:
            words = _require_words(ask)
            self._traffic.sent(words)
            ticket = self._device.submit([step.name for step in ask.steps], words)

        def collect(timeout_seconds: float) -> Claims:
            claims = ticket.result(timeout_seconds)
            whole = any(isinstance(claim, np.ndarray) for claim in claims)
            self._traffic.received(claims, ticket.seconds if whole else 0.0)
            if whole:
                self._traffic.record(ask.steps[0].name, Side.DEVICE, index, begin, begin + ticket.seconds)
            for step, claim in zip(ask.steps, claims, strict=True):
                if isinstance(claim, StreamedClaim):
                    self._traffic.follow(claim, step.name, index)
            return claims

        return collect

    def settle(self) -> None:
        """Makes sure that the device has said no more than it was asked."""
        settle(self._device)

    def stop(self) -> None:
        """The link goes on."""


class _ComputeLane:
    """A thread in which the device computes one exchange after another. A daemon: a device that hangs holds nobody."""

    def __init__(self, device: DevicePort, traffic: Traffic) -> None:
        self._device = device
        self._traffic = traffic
        self._work: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        threading.Thread(target=self._run, name="slalom-device", daemon=True).start()

    def submit(self, ask: Ask, index: int = 0) -> Collect:
        """Lets the device compute an ask when it comes up."""
        return partial(wait_for, self._enqueue(lambda: self._compute(ask, index)))

    def submit_whole(self, activation: np.ndarray) -> Future[Sequence[object]]:
        """The future outputs of a whole network."""
        return self._enqueue(lambda: self._run_whole(activation))

    def settle(self) -> None:
        """A call has one answer."""

    def stop(self) -> None:
        """Lets the thread end once the device has answered what it is at."""
        self._work.put(None)

    def _enqueue(self, work: Callable[[], Answer]) -> Future[Answer]:
        future: Future[Answer] = Future()

        def fulfil() -> None:
            try:
                future.set_result(work())
            except BaseException as error:  # noqa: BLE001 - carried to the thread that waits, which raises it
                future.set_exception(device_failure(error))

        self._work.put(fulfil)
        return future

    def _run(self) -> None:
        while (work := self._work.get()) is not None:
            work()

    def _compute(self, ask: Ask, index: int) -> Claims:
        words = _require_words(ask)
        self._traffic.sent(words)
        begin = time.perf_counter()
        claims = self._device.compute([step.name for step in ask.steps], words)
        # LOAD-BEARING: a subclass could say one thing when it is counted and another when it is read
        if type(claims) not in (list, tuple):
            raise IntegrityError("the device's answer is not a list of claims", step=ask.steps[0].name)
        claims = tuple(claims)  # the device may still hold the list
        end = time.perf_counter()
        self._traffic.received(claims, end - begin)
        self._traffic.record(ask.steps[0].name, Side.DEVICE, index, begin, end)
        return claims

    def _run_whole(self, activation: np.ndarray) -> Sequence[object]:
        self._traffic.sent(activation)
        begin = time.perf_counter()
        outputs = self._device.run(activation)
        if type(outputs) not in (list, tuple):
            raise DeviceError("the device's answer is not a list of outputs")
        self._traffic.received(outputs, time.perf_counter() - begin)
        return outputs


def _require_words(ask: Ask) -> np.ndarray:
    if not isinstance(ask.words, np.ndarray):
        raise DeviceError("this device was not asked to run ahead")
    return ask.words
