"""One run that measures a network in every engine and at every level, on the same cores, one after another."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from slalom.bench.cores import kept_to_cores
from slalom.bench.float_timing import CopyRates, Engine, FloatTiming, MeasureCopies, Question, TellVersions, TimeFloat
from slalom.bench.float_timing import Versions as FloatVersions
from slalom.bench.limits import COPY_BYTES, Limits, measure_memory
from slalom.bench.protected import (
    Arrangement,
    Masks,
    Timeline,
    Trial,
    measure_level,
    measure_timeline,
    measure_with_bank,
)
from slalom.bench.rows import Row, rates_of
from slalom.bench.timing import Effort
from slalom.errors import ModelError
from slalom.plan import Plan
from slalom.reporting import Worker
from slalom.trusted.policy import Protection

Ask = Callable[[Question], object]  # raises ModelError
TIMELINES = (Protection.VERIFIED, Protection.PRIVATE)


@dataclass(frozen=True)
class Skipped:
    """A row that was not measured, and why."""

    name: str
    reason: str


@dataclass(frozen=True)
class Wanted:
    """What one run measures. `engines` of the float network; `copy_bytes` of each thread, for the memory's limit.
    `masks`: how levels with masks come by them; made ahead, off the clock, always."""

    levels: tuple[Protection, ...]
    engines: tuple[Engine, ...]
    cores: tuple[int, ...]
    arrangement: Arrangement
    effort: Effort
    timelines: bool = False
    masks: tuple[Masks, ...] = (Masks.READY,)
    copy_bytes: int = COPY_BYTES

    @property
    def steps(self) -> int:
        """How often the progress advances."""
        gpu = Engine.GPU in self.engines
        with_bank = len(self.banked) * sum(level.masked for level in self.levels)
        return gpu + len(self.cores) * (len(self.engines) - gpu + len(self.levels) + with_bank)

    @property
    def banked(self) -> tuple[Masks, ...]:
        """The ways in which masks are made behind the requests."""
        return tuple(masks for masks in self.masks if masks is not Masks.READY)


@dataclass(frozen=True)
class SideBySide:
    """All rows of one run, what the machine allows, what was left out, and one request of each checked level.

    `gpu` is the GPU's name, empty where torch finds none; `float_versions` of torch and openvino. `interrupted`: the
    rows are those that were measured until then.
    """

    rows: tuple[Row, ...]
    limits: Limits
    skipped: tuple[Skipped, ...]
    timelines: tuple[Timeline, ...]
    workers: tuple[Worker, ...]
    gpu: str
    float_versions: FloatVersions
    interrupted: bool = False


class Bench:
    """A run in progress. `ask` reaches the process that holds the float network."""

    def __init__(self, plan: Plan, images: np.ndarray, ask: Ask, wanted: Wanted) -> None:
        self._trial = Trial(plan, images, wanted.arrangement, wanted.effort)
        self._ask = ask
        self._wanted = wanted
        self._rows: list[Row] = []
        self._skipped: list[Skipped] = []
        self._memory: dict[int, float] = {}
        self._workers: list[Worker] = []

    def measure(self, progress: Callable[[int], None]) -> SideBySide:
        """All that is wanted. Raises what `Session` raises; an engine that does not run is left out, with why.

        Interrupted after its first row, it gives the rows that there are.
        """
        versions = self._ask(TellVersions())
        copies = self._ask(MeasureCopies())
        rates = copies if isinstance(copies, CopyRates) else None
        interrupted = False
        try:
            self._measure_rows(progress)
        except KeyboardInterrupt:
            if not self._rows:
                raise
            interrupted = True
            self._skipped.append(Skipped("every later row", "the run was interrupted"))
        return SideBySide(
            tuple(self._rows),
            self._limits(rates),
            tuple(dict.fromkeys(self._skipped)),
            () if interrupted else self._timelines(),
            tuple(dict.fromkeys(self._workers)),
            "" if rates is None else rates.device,
            versions if isinstance(versions, FloatVersions) else FloatVersions("", ""),
            interrupted,
        )

    def _measure_rows(self, progress: Callable[[int], None]) -> None:
        if Engine.GPU in self._wanted.engines:
            self._measure_float(Engine.GPU, 0)
            progress(1)
        for cores in self._wanted.cores:
            self._measure_cores(cores, progress)

    def _measure_cores(self, cores: int, progress: Callable[[int], None]) -> None:
        with kept_to_cores(cores):
            self._memory[cores] = measure_memory(cores, self._wanted.copy_bytes)
        for engine in self._wanted.engines:
            if engine is not Engine.GPU:
                self._measure_float(engine, cores)
                progress(1)
        for level in self._wanted.levels:
            found = measure_level(self._trial, level, cores)
            self._rows.append(found.row)
            self._workers += found.workers
            progress(1)
            for masks in self._wanted.banked if level.masked else ():
                self._rows.append(measure_with_bank(self._trial, level, cores, masks).row)
                progress(1)

    def _measure_float(self, engine: Engine, cores: int) -> None:
        try:
            timing = self._ask(TimeFloat(engine, cores, self._trial.images, self._wanted.effort))
        except ModelError as error:
            self._skipped.append(Skipped(engine.value, str(error)))
            return
        if isinstance(timing, FloatTiming):
            self._rows.append(_float_row(engine, cores, timing))

    def _limits(self, rates: CopyRates | None) -> Limits:
        """The link's limits are of PCIe: they are nobody's where the worker computes on the CPU."""
        gpu = next((row.rate.median for row in self._rows if row.name == Engine.GPU), None)
        if rates is None or self._wanted.arrangement.worker_device != "cuda":
            return Limits(self._memory, gpu_rate=gpu)
        return Limits(self._memory, rates.to_device, rates.from_device, rates.both_ways, gpu)

    def _timelines(self) -> tuple[Timeline, ...]:
        wanted, cores = self._wanted, max(self._wanted.cores)
        levels = [level for level in TIMELINES if level in wanted.levels and wanted.timelines]
        return tuple(measure_timeline(self._trial, level, cores) for level in levels)


def _float_row(engine: Engine, cores: int, timing: FloatTiming) -> Row:
    rate, latency = rates_of(timing.seconds, timing.images)
    return Row(
        name=engine.value,
        in_tee=engine is not Engine.GPU,
        cores=cores,
        batch=timing.images,
        micro_batches=1,
        requests=len(timing.seconds),
        rate=rate,
        latency=latency,
        detail=timing.detail,
    )
