"""How a walk's asks reach the device: not at all, one exchange at a time, or behind a device that runs ahead.

The device works in its own thread, so that it and the trusted side are busy at once; several walks are in flight.
Every wait is bounded. Nothing here looks at what a claim holds.
"""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol, TypeVar

import numpy as np

from slalom.arithmetic.pieces import StreamedClaim
from slalom.errors import DeviceError, IntegrityError, SlalomError
from slalom.link.port import Claim, DevicePort
from slalom.link.remote import Coming, RemoteDevice
from slalom.trusted.recorder import Recorder, Side, Span
from slalom.trusted.walk import Ask, Claims, WalkGenerator

Outputs = list[np.ndarray]
Words = np.ndarray | StreamedClaim  # of a claim
Answer = TypeVar("Answer")
Collect = Callable[[float], Claims]  # waits so many seconds at most for claims that were asked for

QUEUE_LIMIT = 4

_STOP_TRIES = 40
_STOP_WAIT_SECONDS = 0.025
_END: Any = object()


@dataclass
class Traffic:
    """What crossed the boundary, and how long each side worked. Seconds are busy time, summed over threads.

    `recorder`, where there is one, takes down when it was.
    """

    bytes_to_device: int = 0
    bytes_from_device: int = 0
    device_seconds: float = 0.0
    trusted_seconds: float = 0.0
    exchanges: int = 0
    recorder: Recorder | None = None
    _last_arrival: float = field(default=0.0, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def sent(self, words: np.ndarray) -> None:
        """Counts one array towards the device."""
        with self._lock:
            self.bytes_to_device += words.nbytes
            self.exchanges += 1

    def received(self, claims: Sequence[object], seconds: float) -> None:
        """Counts the claims of one answer and the time the device took."""
        with self._lock:
            known = (np.ndarray, StreamedClaim)
            self.bytes_from_device += sum(claim.nbytes for claim in claims if isinstance(claim, known))
            self.device_seconds += seconds

    def follow(self, claim: StreamedClaim, step: str, micro_batch: int) -> None:
        """Has a claim in pieces tell, once it is read, when the last came; the wait for them was not work."""

        def arrived(arrived_at: float, waited: float) -> None:
            with self._lock:
                begin = max(claim.asked_at, self._last_arrival)  # what came one after another is not counted twice
                self._last_arrival = max(self._last_arrival, arrived_at)
                self.device_seconds += max(0.0, arrived_at - begin)
                self.trusted_seconds -= waited
            self.record(step, Side.DEVICE, micro_batch, begin, max(begin, arrived_at))

        claim.on_arrival = arrived

    def record(self, step: str, side: Side, micro_batch: int, begin: float, end: float) -> None:
        """Takes a span down, if somebody wants to know."""
        if self.recorder is not None:
            self.recorder.add(Span(step, side, micro_batch, begin, end))


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
        lane = _AheadLane(self._device, activations, self._traffic, steps)
        try:
            outputs = [self._follow_one(walk, lane, index) for index, walk in enumerate(walks)]
            lane.settle()
            return outputs
        finally:
            lane.stop()

    def _follow_one(self, walk: WalkGenerator, lane: _AheadLane, index: int) -> Outputs:
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
            outputs = [_wait(lane.submit_whole(activation), self._timeout_seconds) for activation in activations]
            _settle(self._device)
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
        """Sends an ask; several may be on their way."""
        words = _require_words(ask)
        self._traffic.sent(words)
        begin = time.perf_counter()
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
        _settle(self._device)

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
        return partial(_wait, self._enqueue(lambda: self._compute(ask, index)))

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
                future.set_exception(_device_failure(error))

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


class _AheadLane:
    """A thread in which the device runs ahead of the checks; a full queue holds it back."""

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
        _settle(self._device)

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
            self._queue.put(_device_failure(error))

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


def _settle(device: DevicePort) -> None:
    """An empty message there and back over a link: whatever else comes before it was not asked for."""
    if isinstance(device, RemoteDevice):
        device.ping()


def _require_words(ask: Ask) -> np.ndarray:
    if ask.words is None:
        raise DeviceError("this device was not asked to run ahead")
    return ask.words


def call_device(call: Callable[[], None], timeout_seconds: float) -> None:
    """Calls `load` or `close` of a device in a thread of its own. Raises DeviceError where it fails or takes longer."""
    future: Future[None] = Future()

    def fulfil() -> None:
        try:
            call()
            future.set_result(None)
        except BaseException as error:  # noqa: BLE001 - carried to the thread that waits, which raises it
            future.set_exception(_device_failure(error))

    threading.Thread(target=fulfil, name="slalom-device", daemon=True).start()
    _wait(future, timeout_seconds)


def _wait(future: Future[Answer], timeout_seconds: float) -> Answer:
    try:
        return future.result(timeout_seconds)
    except FutureTimeoutError as error:
        raise DeviceError(f"the device did not answer within {timeout_seconds:g} seconds") from error


def _device_failure(error: BaseException) -> SlalomError:
    """The error a user sees. LOAD-BEARING: never the device's own StopIteration, which would end a walk for it."""
    if isinstance(error, SlalomError):
        return error
    failure = DeviceError(f"the device failed with {type(error).__name__}")
    failure.__cause__ = error
    return failure
