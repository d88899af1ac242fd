"""The lives of a session: each is one worker with a trusted session of its own, its own key, probes and masks.

A worker that lies, breaks or falls silent ends its life, with all the secrets of that life, and is not used again.
What one worker could learn or attempt is of no use with another.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from slalom.arithmetic.dispatch import Dispatch
from slalom.errors import ApiMisuse, DeviceError, SlalomError, WireError
from slalom.fleet.roster import EndpointSource, Source, SpawnSource
from slalom.link.port import DevicePort
from slalom.link.remote import RemoteDevice
from slalom.plan import Plan
from slalom.reporting import Incident, Outcome
from slalom.trusted.calls import call_device
from slalom.trusted.policy import Protection
from slalom.trusted.session import SessionOptions, SessionReport, TrustedSession


class OnFailure(StrEnum):
    """What becomes of a request that a worker failed."""

    FAIL = "fail"  # its error is raised
    RETRY = "retry"  # it is run again on another worker, with fresh masks and probes
    ENCLAVE = "enclave"  # it is computed inside


@dataclass(frozen=True, eq=False)
class Life:
    """One worker and the trusted session that speaks with it; without a device everything is computed inside."""

    trusted: TrustedSession
    device: DevicePort | None
    source: Source | None
    dealer: RemoteDevice | None = None

    @property
    def name(self) -> str:
        """The worker, for people."""
        return "inside" if self.source is None else self.source.name


@dataclass(frozen=True, eq=False)
class Setup:
    """What every life of a session is opened with. `on_failure` decides whether the plan is kept for later lives.
    `dealer`: who makes the mask images of those that are there from the beginning."""

    dispatch: Dispatch
    options: SessionOptions
    on_failure: OnFailure
    dealer: SpawnSource | EndpointSource | None = None

    def open(self, plan: Plan, source: Source) -> Life:
        """A life with a fresh key. Raises DeviceError or WireError where its worker, or dealer, cannot be had."""
        dealer = None if self.dealer is None else self.dealer.open()
        try:
            if dealer is not None:
                dealer.load(plan)
            device = source.open()
            life = Life(TrustedSession(plan, device, self.dispatch, self.options, dealer), device, source, dealer)
        except BaseException:
            if dealer is not None:
                dealer.close()
            raise
        try:
            # LOAD-BEARING: after the trusted side has its copies, for a device in this process could change the plan
            self._load(device, plan)
        except BaseException:
            self.destroy(life)
            raise
        return life

    def open_inside(self, plan: Plan) -> Life:
        """A life without a worker: everything is computed inside."""
        policy = replace(self.options.policy, protection=Protection.ENCLAVE)
        return Life(TrustedSession(plan, None, self.dispatch, replace(self.options, policy=policy)), None, None)

    def close(self, life: Life) -> None:
        """Ends a life. Raises DeviceError, with its secrets gone, where the device does not close."""
        try:
            if life.dealer is not None:
                life.dealer.close()  # first: who waits for it is told, and need not be waited for
        finally:
            life.trusted.close()
            if isinstance(life.device, RemoteDevice):
                life.device.close()
            elif life.device is not None:
                call_device(life.device.close, self.options.timeout_seconds)

    def destroy(self, life: Life) -> None:
        """Ends a life whose device need not behave."""
        with contextlib.suppress(DeviceError):
            self.close(life)

    def _load(self, device: DevicePort, plan: Plan) -> None:
        if isinstance(device, RemoteDevice):
            device.load(plan)
            return
        given = plan if self.on_failure is OnFailure.FAIL else _copy_of(plan)
        call_device(lambda: device.load(given), self.options.timeout_seconds)


class Crew:
    """The lives that are left. Thread-safe: a life serves one request at a time, and requests wait for one.

    A worker that failed is followed by a fresh one where its source gives one. With `enclave`, a life inside stands in
    once no other is left.
    """

    def __init__(self, plan: Plan, sources: Sequence[Source], setup: Setup) -> None:
        self._setup = setup
        self._plan = None if setup.on_failure is OnFailure.FAIL else plan
        self._changed = threading.Condition()
        self._idle: list[Life] = []
        self._all: list[Life] = []
        self._past: list[SessionReport] = []
        self._within: Life | None = None if sources else setup.open_inside(plan)
        self._over: str | None = None
        self._retiring = 0  # lives that are being ended, and perhaps replaced
        self.incidents: list[Incident] = []
        self._open_all(plan, sources)

    @property
    def lives(self) -> tuple[Life, ...]:
        """Those that are left, but for the one inside."""
        with self._changed:
            return tuple(self._all)

    @property
    def reports(self) -> tuple[SessionReport, ...]:
        """The figures of every life there was."""
        with self._changed:
            lives = [*self._all, *([self._within] if self._within else [])]
            return (*self._past, *(life.trusted.report for life in lives))

    def take(self) -> Life:
        """A life that no other request has, or the one inside. Raises ApiMisuse where none is left."""
        return self.take_another() or self.inside()

    def take_another(self) -> Life | None:
        """A life that no other request has, once there is one; None where none is left."""
        with self._changed:
            while not self._idle and (self._all or self._retiring) and self._over is None:
                self._changed.wait()
            return self._idle.pop() if self._idle and self._over is None else None

    def inside(self) -> Life:
        """The life without a worker, which requests share in turns. Raises ApiMisuse where there is none."""
        with self._changed:
            if self._within is None and self._over is None and self._setup.on_failure is OnFailure.ENCLAVE:
                self._within = self._setup.open_inside(self._require_plan())
            if self._within is None or self._over is not None:
                reason = self._over or "an earlier request failed"
                raise ApiMisuse(f"the session is over: {reason}", hint="open a new one")
            return self._within

    def give_back(self, life: Life) -> None:
        """Lets the next request have it; or ends its worker, where an error that was no worker's ended the life."""
        with self._changed:
            if life in self._all and not life.trusted.is_over:
                self._idle.append(life)
            self._changed.notify()
        if life.trusted.is_over:
            with self._retirement():
                self._end(life)

    def retire(self, life: Life) -> None:
        """Ends a life whose worker failed: it is never used again. A fresh one takes its place where there is one."""
        with self._retirement():
            self._end(life)
            if life.source is not None and life.source.fresh:
                self._replace(life.source)

    def close(self, reason: str) -> None:
        """Ends every life, one that is being opened too. Raises the first DeviceError, with all of them ended."""
        with self._changed:
            self._over = self._over or reason
            lives = list(self._all) + ([self._within] if self._within else [])
            self._changed.notify_all()
        failures = []
        for life in lives:
            if not self._forget(life) and life is not self._within:
                continue  # another thread ends it
            try:
                self._setup.close(life)
            except DeviceError as error:
                failures.append(error)
            self._record(life)
        with self._changed:
            while self._retiring:
                self._changed.wait()
        if failures:
            raise failures[0]

    def _open_all(self, plan: Plan, sources: Sequence[Source]) -> None:
        """Every worker that can be had. Raises what the first refusal was where none can, or none may be left out."""
        for source in sources:
            try:
                self._add(self._setup.open(plan, source))
            except (DeviceError, WireError) as error:
                self._left_out(source, error)
                if self._setup.on_failure is OnFailure.FAIL or (source is sources[-1] and not self._all):
                    self.close("a worker could not be had")
                    raise
            except BaseException:
                self.close("it was not opened")
                raise

    def _left_out(self, source: Source, error: SlalomError) -> None:
        self.incidents.append(Incident(source.name, type(error).__name__, str(error), Outcome.LEFT_OUT))

    def _add(self, life: Life) -> None:
        with self._changed:
            over = self._over is not None
            if not over:
                self._all.append(life)
                self._idle.append(life)
                self._changed.notify()
        if over:
            self._setup.destroy(life)

    @contextlib.contextmanager
    def _retirement(self) -> Iterator[None]:
        """Meanwhile a request that finds no life waits for what comes of it, and so does the end of the session."""
        with self._changed:
            self._retiring += 1
        try:
            yield
        finally:
            with self._changed:
                self._retiring -= 1
                self._changed.notify_all()

    def _replace(self, source: Source) -> None:
        if self._plan is None or self._over is not None:
            return
        try:
            # LOAD-BEARING: nobody can tell whether a worker lied or its dealer, so no dealer is used again
            self._add(replace(self._setup, dealer=None).open(self._plan, source))
        except (DeviceError, WireError) as error:
            self._left_out(source, error)

    def _end(self, life: Life) -> None:
        if self._forget(life):
            self._setup.destroy(life)
            self._record(life)

    def _forget(self, life: Life) -> bool:
        """Takes a life away from all requests; whether it was there, and is the caller's to end."""
        with self._changed:
            known = life in self._all
            if known:
                self._all.remove(life)
            if life in self._idle:
                self._idle.remove(life)
            self._changed.notify_all()
            return known

    def _record(self, life: Life) -> None:
        """Keeps the figures of a life that ended, once it holds nothing any more."""
        with self._changed:
            if life is not self._within:
                self._past.append(life.trusted.report)

    def _require_plan(self) -> Plan:
        if self._plan is None:
            raise ApiMisuse("the plan was not kept")
        return self._plan


def _copy_of(plan: Plan) -> Plan:
    """The same plan in other memory, for a device in this process to do with as it likes."""
    return Plan(plan.graph, {name: tensor.copy() for name, tensor in plan.tensors.items()})
