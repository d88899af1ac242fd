"""The door most users come through: a plan, a protection level, NumPy in and NumPy out."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from types import TracebackType

import numpy as np

from slalom.arithmetic.dispatch import Isa, make_dispatch, thread_count
from slalom.errors import ApiMisuse, DeviceError, IntegrityError, WireError
from slalom.fleet.roster import (
    AUTO,
    IN_PROCESS,
    SPAWN,
    EndpointSource,
    LinkChoice,
    ObjectSource,
    Source,
    SpawnSource,
    make_dealer_source,
    make_source,
    require_another,
)
from slalom.isolation.level import parse_isolation
from slalom.isolation.process import harden_process
from slalom.isolation.secret import SecretMemory
from slalom.link.port import DevicePort
from slalom.plan import Plan
from slalom.reporting import Incident, Outcome, Report, Worker, describe_worker, merge_reports
from slalom.supervision import Crew, Life, OnFailure, Setup
from slalom.trusted.bank import MaskBankOptions
from slalom.trusted.policy import Policy, Protection, parse_policy
from slalom.trusted.recorder import Recorder
from slalom.trusted.session import SessionOptions
from slalom.worker.options import WorkerOptions

MAXIMUM_ATTEMPTS = 3  # at one request, each on another worker

_PORT = ("load", "run_ahead", "compute", "run", "close")
_WORKER_FAILURES = (IntegrityError, WireError, DeviceError)
Place = str | DevicePort


class Session:
    """Runs images through a plan on workers nobody has to trust.

    >>> with slalom.Session(plan, protection="private") as session:
    ...     logits = session.run(images)

    plan: what `slalom.compile` made or `Plan.load` read.
    protection: device, enclave, verified, blinded or private. check: direct, batched or preprocessed.
    rounds: independent checks of every linear result, 1..64. schedule: ahead or layerwise (`verified` only).
    device: "spawn" starts one confined worker process; "unix:PATH" or "tcp:HOST:PORT" is one that runs; "cpu" is a
    device in this process, as is any object with the methods of `link.port.DevicePort` (a simulation of the boundary);
    or a sequence of these, each a worker with a trusted session of its own.
    on_failure: fail raises a worker's error; retry runs the request again on another worker with fresh masks; enclave
    computes it inside. A worker that failed is never used again. isolation: strict, best-effort or off, of spawned
    workers and of this process. bulk: how arrays cross: auto, memfd, shm or inline.
    threads: of the trusted side, all cores by default. isa: numpy, portable, avx2, avx512 or amx; the fastest else.
    micro_batches: parts of a batch in flight at once. timeout_seconds bounds every wait for a worker.
    worker_device: what spawned workers compute on, cpu or cuda; worker_threads: of their engine, all cores by default.
    recorder: takes down when each side worked on what.
    mask_bank: has masks made in the background, for each worker; by default a request makes its own.
    dealer: another worker, of somebody who does not collude with the device's: it is told the masks' seeds, and makes
    their images, for the bank and `prepare_masks`. "spawn" (on dealer_device, cpu or cuda) is a simulation of that.
    attack: lets spawned workers be the named cheating device, for demonstrations.

    Thread-safe: requests wait for a free worker. Raises ApiMisuse for arguments that do not fit together, DeviceError
    for a worker that cannot be had.
    """

    def __init__(
        self,
        plan: Plan,
        *,
        protection: str = "private",
        check: str = "preprocessed",
        rounds: int = 1,
        schedule: str = "ahead",
        device: Place | Sequence[Place] = SPAWN,
        on_failure: str = "fail",
        isolation: str = "best-effort",
        bulk: str = AUTO,
        threads: int | None = None,
        isa: str | None = None,
        micro_batches: int = 2,
        timeout_seconds: float = 120.0,
        worker_device: str = "cpu",
        worker_threads: int | None = None,
        recorder: Recorder | None = None,
        mask_bank: MaskBankOptions | None = None,
        dealer: str | None = None,
        dealer_device: str = "cpu",
        attack: str | None = None,
    ) -> None:
        if not isinstance(plan, Plan):
            raise ApiMisuse(f"plan must be a slalom.Plan, not {type(plan).__name__}", hint="slalom.compile makes one")
        self.policy: Policy = parse_policy(protection, check, rounds, schedule)
        self.plan_digest = plan.digest
        self._has_mask_bank = mask_bank is not None and self.policy.protection.masked
        self._on_failure = _parse_on_failure(on_failure)
        options = SessionOptions(self.policy, micro_batches, timeout_seconds, SecretMemory, recorder, mask_bank)
        if attack is not None:
            from slalom.attacks.table import require_attack  # no part of what runs inside a TEE

            require_attack(attack)
        worker = WorkerOptions(
            device=worker_device, threads=worker_threads, isolation=parse_isolation(isolation).value, attack=attack
        )
        choice = LinkChoice(bulk, micro_batches, timeout_seconds, worker, thread_count(threads))
        sources = self._find_sources(device, choice)
        dealing = None if dealer is None else self._find_dealer(dealer, dealer_device, sources, choice)
        self._dealer = dealing
        if not all(isinstance(source, ObjectSource) for source in sources):
            harden_process(parse_isolation(isolation))
        self._dispatch = make_dispatch(_parse_isa(isa), threads)
        try:
            self._crew = Crew(plan, sources, Setup(self._dispatch, options, self._on_failure, dealing))
        except BaseException:
            self._dispatch.close()
            raise

    def run(self, images: np.ndarray) -> np.ndarray | tuple[np.ndarray, ...]:
        """The network's output for float32 images [batch, ...]: one array, or a tuple for several outputs.

        Raises InputError for unusable images; IntegrityError, WireError or DeviceError where a worker failed and
        `on_failure` has no other way: never an output that was not checked as the protection level says.
        """
        outputs = self._attempt(images)
        return outputs[0] if len(outputs) == 1 else tuple(outputs)

    @property
    def has_mask_bank(self) -> bool:
        """Whether masks are made in the background."""
        return self._has_mask_bank

    def prepare_masks(self, images: int) -> None:
        """Makes the masks for one request of `images` ahead of time, so that it does not wait for them."""
        life = self._crew.take()
        try:
            life.trusted.prepare_masks(images)
        finally:
            self._crew.give_back(life)

    @property
    def report(self) -> Report:
        """Figures of the session so far: soundness, bytes, seconds, memory, what failed and what was done about it."""
        return merge_reports(self._crew.reports, tuple(self._crew.incidents))

    @property
    def dealers(self) -> tuple[Worker, ...]:
        """The workers that make mask images, as `workers`."""
        lives = self._crew.lives
        name = "" if self._dealer is None else self._dealer.name
        return tuple(describe_worker(name, life.dealer) for life in lives if life.dealer is not None)

    @property
    def workers(self) -> tuple[Worker, ...]:
        """The workers that are left, and how each says it is confined."""
        return tuple(describe_worker(life.name, life.device) for life in self._crew.lives)

    def close(self) -> None:
        """Ends the session: secrets are overwritten, workers are ended. May be called twice.

        Raises DeviceError, with the session ended, where a device's own `close` fails or takes too long.
        """
        try:
            self._crew.close("it was closed")
        finally:
            self._dispatch.close()

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.close()
        except DeviceError:
            if error is None:  # else a device that fails to close would hide why the session ended
                raise

    def _find_sources(self, device: Place | Sequence[Place], choice: LinkChoice) -> list[Source]:
        if self.policy.protection is Protection.ENCLAVE:
            return []
        places: list[Place] = list(device) if isinstance(device, Sequence) and not isinstance(device, str) else [device]
        if not places:
            raise ApiMisuse("no device is named", hint="spawn starts one")
        return [find_source(place, choice) for place in places]

    def _find_dealer(
        self, place: str, device: str, sources: Sequence[Source], choice: LinkChoice
    ) -> SpawnSource | EndpointSource:
        if not self.policy.protection.masked:
            raise ApiMisuse("a dealer is for levels with masks", hint="use protection private or blinded")
        if place == IN_PROCESS:
            raise ApiMisuse("a dealer is a worker of its own", hint="spawn, unix:PATH or tcp:HOST:PORT")
        worker = replace(choice.worker, device=device, attack=None)
        dealer = make_dealer_source(place, replace(choice, worker=worker))
        require_another(dealer, sources)
        return dealer

    def _attempt(self, images: np.ndarray) -> list[np.ndarray]:
        """Runs a request on one worker after another, until one answers or there is no other way."""
        life = self._crew.take()
        for attempt in itertools.count(1):
            try:
                return life.trusted.run(images)
            except _WORKER_FAILURES as error:
                self._crew.retire(life)
                outcome, following = self._follow(attempt)
                self._crew.incidents.append(Incident(life.name, type(error).__name__, str(error), outcome))
                if following is None:
                    raise
            finally:
                self._crew.give_back(life)
            life = following
        raise DeviceError("no worker answered")

    def _follow(self, attempt: int) -> tuple[Outcome, Life | None]:
        """What is done about a failed attempt, and where the request goes next."""
        if self._on_failure is OnFailure.ENCLAVE:
            return Outcome.COMPUTED_INSIDE, self._crew.inside()
        another = self._on_failure is OnFailure.RETRY and attempt < MAXIMUM_ATTEMPTS
        following = self._crew.take_another() if another else None
        return (Outcome.RAISED if following is None else Outcome.RETRIED), following


def find_source(place: Place, choice: LinkChoice) -> Source:
    """Where the device at a place comes from: an endpoint, a process to be started, or an object of this process."""
    if isinstance(place, str):
        return ObjectSource(_make_local, fresh=True) if place == IN_PROCESS else make_source(place, choice)
    missing = [name for name in _PORT if not callable(getattr(place, name, None))]
    if missing:
        raise ApiMisuse(f"a device has a method {missing[0]}; {type(place).__name__} has none", hint="see DevicePort")
    return ObjectSource(lambda: place, type(place).__name__)


def _make_local() -> DevicePort:
    try:
        from slalom.device.local import LocalDevice
    except ModuleNotFoundError as error:
        raise ApiMisuse(
            f"the cpu device needs {error.name}, which is not installed",
            hint="install the device extra, see the README",
        ) from error
    return LocalDevice()


def _parse_on_failure(word: str) -> OnFailure:
    try:
        return OnFailure(word)
    except ValueError as error:
        raise ApiMisuse(f"unknown on_failure {word!r:.40}", hint=f"choose one of {', '.join(OnFailure)}") from error


def _parse_isa(isa: str | None) -> Isa | None:
    if isa is None:
        return None
    try:
        return Isa(isa)
    except ValueError as error:
        raise ApiMisuse(f"unknown instruction set {isa!r:.40}", hint=f"choose one of {', '.join(Isa)}") from error
