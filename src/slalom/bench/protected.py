"""One protection level on so many trusted cores: requests timed, masks ready, bytes and busy times counted."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np

from slalom.bench.cores import kept_to_cores
from slalom.bench.rows import Row, Stages, rates_of
from slalom.bench.timing import Effort, time_requests
from slalom.fleet.roster import SPAWN
from slalom.plan import Plan
from slalom.reporting import Report, Worker
from slalom.session import Session
from slalom.trusted.bank import MaskBankOptions, WhenEmpty
from slalom.trusted.policy import Protection
from slalom.trusted.recorder import Recorder, Span


@dataclass(frozen=True)
class Arrangement:
    """How levels are run: `places` as `Session` takes them, `worker_device` of spawned ones, `isa` of the kernels;
    `dealer`: who deals where masks are dealt."""

    places: tuple[str, ...]
    worker_device: str
    micro_batches: int
    isa: str | None
    dealer: str = SPAWN

    def open(
        self,
        plan: Plan,
        level: Protection,
        cores: int,
        recorder: Recorder | None = None,
        mask_bank: MaskBankOptions | None = None,
        dealer: str | None = None,
    ) -> Session:
        """A session with so many trusted threads; a spawned CPU worker has as many, of its own."""
        return Session(
            plan,
            protection=level,
            device=list(self.places),
            threads=cores,
            isa=self.isa,
            micro_batches=self.micro_batches,
            worker_device=self.worker_device,
            worker_threads=cores if self.worker_device == "cpu" else None,
            recorder=recorder,
            mask_bank=mask_bank,
            dealer=dealer,
            dealer_device=self.worker_device,
        )


@dataclass(frozen=True, eq=False)
class Trial:
    """What every level is measured on: the same images [B, ...] of one plan."""

    plan: Plan
    images: np.ndarray
    arrangement: Arrangement
    effort: Effort


@dataclass(frozen=True)
class LevelFound:
    """A row, and the workers that answered."""

    row: Row
    workers: tuple[Worker, ...]


@dataclass(frozen=True)
class Timeline:
    """One request of a level: its spans, in seconds from its beginning."""

    level: str
    cores: int
    batch: int
    spans: tuple[Span, ...]


def measure_level(trial: Trial, level: Protection, cores: int) -> LevelFound:
    """Requests at a level. Raises what `Session` raises."""
    images = trial.images
    with trial.arrangement.open(trial.plan, level, cores) as session, kept_to_cores(cores):
        _request(session, images)
        before = session.report
        seconds = time_requests(lambda: session.run(images), trial.effort, lambda: session.prepare_masks(len(images)))
        row = _row(trial, level, cores, seconds, (before, session.report))
        return LevelFound(row, session.workers)


class Masks(StrEnum):
    """Where the masks of a level's requests come from: made before each, off the clock; so, while more are made
    behind; or made behind alone, so that requests come to wait for them; or so with a dealer, by default a process on
    this machine: a simulation of one elsewhere."""

    READY = "ready"
    REFILLING = "refilling"
    SUSTAINED = "sustained"
    DEALT = "dealt"


_REQUESTS_AHEAD = 3  # that the bank has room for while it is refilled
_NO_LIMIT = 10**15


def measure_with_bank(trial: Trial, level: Protection, cores: int, masks: Masks) -> LevelFound:
    """Requests at a level with a mask bank on the same cores. The row's name says which way."""
    images, count = trial.images, len(trial.images)
    target = count if masks is Masks.SUSTAINED else _REQUESTS_AHEAD * count
    dealer = trial.arrangement.dealer if masks is Masks.DEALT else None
    bank = MaskBankOptions(count, target, target, _NO_LIMIT, when_empty=WhenEmpty.WAIT)

    def prepare() -> None:
        """Off the clock, but where what is measured is the wait."""
        while masks is Masks.REFILLING and session.report.masks.ready_images < count:
            time.sleep(0.001)

    with (
        trial.arrangement.open(trial.plan, level, cores, mask_bank=bank, dealer=dealer) as session,
        kept_to_cores(cores),
    ):
        for _ in range(2):  # the second finds what was made while the first ran, as all that follow do
            session.run(images)
        before = session.report
        seconds = time_requests(lambda: session.run(images), trial.effort, prepare)
        row = _row(trial, level, cores, seconds, (before, session.report))
        return LevelFound(replace(row, name=f"{level.value}, {masks.value}"), session.workers)


def measure_timeline(trial: Trial, level: Protection, cores: int) -> Timeline:
    """The spans of one request, after one that warmed up."""
    recorder = Recorder()
    with trial.arrangement.open(trial.plan, level, cores, recorder) as session, kept_to_cores(cores):
        for _ in range(2):
            recorder.take()
            _request(session, trial.images)
    spans = recorder.take()
    begin = min((span.begin for span in spans), default=0.0)
    moved = tuple(span._replace(begin=span.begin - begin, end=span.end - begin) for span in spans)
    return Timeline(level.value, cores, len(trial.images), moved)


def _request(session: Session, images: np.ndarray) -> None:
    session.prepare_masks(len(images))
    session.run(images)


def _row(
    trial: Trial, level: Protection, cores: int, seconds: tuple[float, ...], reports: tuple[Report, Report]
) -> Row:
    before, after = reports
    count = after.images - before.images
    rate, latency = rates_of(seconds, len(trial.images))
    up = (after.bytes_to_device - before.bytes_to_device) / count
    down = (after.bytes_from_device - before.bytes_from_device) / count
    return Row(
        name=level.value,
        in_tee=level is Protection.ENCLAVE,
        cores=cores,
        batch=len(trial.images),
        micro_batches=trial.arrangement.micro_batches,
        requests=len(seconds),
        rate=rate,
        latency=latency,
        bytes_to_device=up,
        bytes_from_device=down,
        memory_bytes=(up + down) * (2 if level.masked else 1),
        stages=_stages(before, after),
    )


def _stages(before: Report, after: Report) -> Stages:
    count = after.images - before.images
    trusted = (after.trusted_seconds - before.trusted_seconds) / count
    return Stages(
        trusted=trusted,
        wait=max(0.0, (after.seconds - before.seconds) / count - trusted),
        device=(after.device_seconds - before.device_seconds) / count,
        masks=(after.mask_seconds - before.mask_seconds) / count,
        setup=after.setup_seconds,
    )
