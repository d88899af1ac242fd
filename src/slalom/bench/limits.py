"""What the machine allows, measured in the same run, and how near a row comes to it."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from slalom.bench.rows import Row

COPY_BYTES = 128 * 2**20  # of each thread: several times any share of a third-level cache
_ROUNDS = 7


@dataclass(frozen=True)
class Limits:
    """Bytes a second. memory: read and written, by number of cores. The link's, each way alone and both ways together,
    None where there is none.

    `gpu_rate` is images a second of the network unprotected on the GPU: more than any level could reach.
    """

    memory: Mapping[int, float]
    to_device: float | None = None
    from_device: float | None = None
    both_ways: float | None = None
    gpu_rate: float | None = None


@dataclass(frozen=True)
class Standing:
    """A row beside the limits and beside other rows; None where there is nothing to compare with.

    A limit is in images a second, a share is the row's median over it, a ratio the row's median over the other's.
    `link_limit` is the lowest of each way's and of both together; `in_tee` is the strongest engine wholly inside on the
    same cores.
    """

    link_limit: float | None
    link_share: float | None
    memory_limit: float | None
    memory_share: float | None
    over_in_tee: float | None
    over_torch: float | None


def measure_memory(threads: int, size: int = COPY_BYTES) -> float:
    """Bytes a second, read and written, of `threads` threads that each copy `size` bytes: a median."""
    barrier = threading.Barrier(threads + 1)
    with ThreadPoolExecutor(threads) as pool:
        workers = [pool.submit(_copy_often, size, barrier) for _ in range(threads)]
        seconds = []
        for _ in range(_ROUNDS + 1):
            barrier.wait()
            begin = time.perf_counter()
            barrier.wait()
            seconds.append(time.perf_counter() - begin)
        for worker in workers:
            worker.result()
    return 2.0 * size * threads / float(np.median(seconds[1:]))


def _copy_often(size: int, barrier: threading.Barrier) -> None:
    source, target = np.ones(size, np.uint8), np.ones(size, np.uint8)
    for _ in range(_ROUNDS + 1):
        barrier.wait()
        np.copyto(target, source)
        barrier.wait()


def standing_of(row: Row, rows: Sequence[Row], limits: Limits) -> Standing:
    """How a row stands among the rows of one run."""
    link, memory = _link_limit(row, limits), _memory_limit(row, limits)
    same = [other for other in rows if other.cores == row.cores and row.cores > 0]
    inside = [other.rate.median for other in same if other.in_tee]
    torch = [other.rate.median for other in same if other.name == TORCH_FP32]
    return Standing(
        link,
        _over(row, link),
        memory,
        _over(row, memory),
        _over(row, max(inside, default=None)),
        _over(row, max(torch, default=None)),
    )


TORCH_FP32 = "torch fp32"


def _over(row: Row, other: float | None) -> float | None:
    return None if other is None else row.rate.median / other


def _link_limit(row: Row, limits: Limits) -> float | None:
    ways = (
        (row.bytes_to_device, limits.to_device),
        (row.bytes_from_device, limits.from_device),
        (row.crossing_bytes, limits.both_ways),
    )
    bounds = [rate / size for size, rate in ways if size and rate]
    return min(bounds, default=None)


def _memory_limit(row: Row, limits: Limits) -> float | None:
    rate = limits.memory.get(row.cores)
    return rate / row.memory_bytes if rate and row.memory_bytes else None
