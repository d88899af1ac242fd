"""The speed of the fused pass beside a plain copy of as many bytes, in cache and from memory."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from slalom.arithmetic.dispatch import Dispatch
from slalom.arithmetic.field import P
from slalom.arithmetic.fused import PassInput, run_pass
from slalom.arithmetic.memory import aligned_copy, aligned_empty
from slalom.arithmetic.pointwise import Program, prepare_program
from slalom.plan.steps import Activation, Affine, Apply, Function, Pointwise

BATCH = 8
CHANNELS = 64
CACHE_BYTES = 3 * 2**20  # beyond a second-level cache of 1 or 2 MiB, well within a third-level one
MEMORY_COUNT = 2**20 + CHANNELS  # 64 to 185 MB, several third-level caches of 32 MiB; no power of two apart


@dataclass(frozen=True)
class FusedRow:
    """One measurement, in nanoseconds per element; `copy` moves the pass's bytes, half read and half written.

    `masked` is the private pass (mask image off, mask on); else the verified one. One probe, one probe image.
    """

    isa: str
    threads: int
    masked: bool
    from_memory: bool
    elements: int
    bytes_per_element: float
    median: float
    p10: float
    p90: float
    copy: float

    @property
    def ratio(self) -> float:
        """The pass's median time over the copy's."""
        return self.median / self.copy


def measure_fused(dispatch: Dispatch) -> list[FusedRow]:
    """Verified and private, in cache and from memory: affine, relu, requantise, one probe on each side.

    The copy (`np.copyto`) takes turns with the pass and runs on one thread whatever the dispatch's.
    """
    return [_measure(dispatch, masked, from_memory) for from_memory, masked in product((False, True), repeat=2)]


def _measure(dispatch: Dispatch, masked: bool, from_memory: bool) -> FusedRow:
    count = MEMORY_COUNT if from_memory else CACHE_BYTES // (BATCH * (20 if masked else 8)) // CHANNELS * CHANNELS
    given = _draw(count, masked)
    shape = given.shape
    values = aligned_empty(shape, np.int16)
    blinded = aligned_empty(shape, np.int32) if masked else None
    elements = shape[0] * shape[1]
    size = sum(array.nbytes for array in _arrays(given)) + values.nbytes + (0 if blinded is None else blinded.nbytes)
    # LOAD-BEARING: written to, or every page of the origin is one page of zeros that never leaves the cache.
    origin, target = np.ones(size // 2, np.uint8), np.ones(size // 2, np.uint8)
    repeats = 20 if from_memory else 1000
    passes, copies = _take_turns(
        repeats,
        lambda: run_pass(dispatch, given, values_out=values, blinded_out=blinded),
        lambda: np.copyto(target, origin),
    )
    low, median, high = (float(np.percentile(passes, part)) / elements for part in (10, 50, 90))
    return FusedRow(
        isa=dispatch.isa.value,
        threads=dispatch.threads,
        masked=masked,
        from_memory=from_memory,
        elements=elements,
        bytes_per_element=size / elements,
        median=median,
        p10=low,
        p90=high,
        copy=float(np.median(copies)) / elements,
    )


def _take_turns(repeats: int, first: Callable[[], object], second: Callable[[], object]) -> tuple[list[int], list[int]]:
    """Nanoseconds of each call, after two unmeasured ones."""
    taken: tuple[list[int], list[int]] = ([], [])
    for _ in range(repeats + 2):
        for times, work in zip(taken, (first, second), strict=True):
            begin = time.perf_counter_ns()
            work()
            times.append(time.perf_counter_ns() - begin)
    return taken[0][2:], taken[1][2:]


def _draw(count: int, masked: bool) -> PassInput:
    rng = np.random.default_rng(count)
    shape = (BATCH, count)

    def words() -> NDArray[np.int32]:
        return aligned_copy(rng.integers(-(2**31), 2**31, shape, dtype=np.int32))

    def elements() -> NDArray[np.uint64]:
        return aligned_copy(rng.integers(0, P, count, dtype=np.uint64))

    return PassInput(
        source=words(),
        mask_image=words() if masked else None,
        probes=(elements(),),
        program=_prepare(count),
        operands={},
        probe_images=(elements(),),
        mask=words() if masked else None,
    )


def _prepare(count: int) -> Program:
    tensors = {
        "multiplier": np.linspace(1e-9, 2e-9, CHANNELS, dtype=np.float32),
        "bias": np.linspace(-1, 1, CHANNELS, dtype=np.float32),
    }
    operations = (Affine("multiplier", "bias"), Apply(Function.RELU))
    output = Activation((count // CHANNELS, CHANNELS), 2.0**-9, 12)
    return prepare_program(Pointwise("fused", "claims", operations, output), tensors, {})


def _arrays(given: PassInput) -> Iterator[NDArray[np.generic]]:
    if isinstance(given.source, np.ndarray):
        yield given.source
    yield from (array for array in (given.mask_image, given.mask) if array is not None)
    yield from given.probes
    yield from given.probe_images
