"""Which kernels run, and on how many threads: chosen once at the edge and passed down."""

from __future__ import annotations

import contextlib
import itertools
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TypeVar

from slalom import _native
from slalom.errors import ApiMisuse

Result = TypeVar("Result")

_NICENESS = 19  # the least that a thread can ask for


class Isa(StrEnum):
    """An implementation of the kernels; all of them give the same bits.

    `AMX` is `AVX512` with matrix products on the processor's tiles of bytes. `TILES` is `PORTABLE` with the same
    products on tiles in plain C++: slow, for tests, on every processor.
    """

    NUMPY = "numpy"
    PORTABLE = "portable"
    AVX2 = "avx2"
    AVX512 = "avx512"
    AMX = "amx"
    TILES = "tiles"

    @property
    def code(self) -> int:
        """The number by which the extension knows a compiled instruction set (isa.hpp)."""
        return (Isa.PORTABLE, Isa.AVX2, Isa.AVX512, Isa.AMX, Isa.TILES).index(self)

    @property
    def has_tiles(self) -> bool:
        """Whether its matrix products are of bytes, on tiles."""
        return self in (Isa.AMX, Isa.TILES)


def available_isas() -> tuple[Isa, ...]:
    """Every implementation that this processor can run and one would choose, slowest first."""
    return (Isa.NUMPY, *(Isa(name) for name in _native.supported_isas()))


@dataclass(frozen=True)
class Dispatch:
    """One instruction set and `threads` threads, twice: `team` shares out one kernel call among threads that never see
    Python, for what must be quick; `run_ranges` cuts 0..count into contiguous ranges whose inner edges are multiples of
    `multiple`, for what takes long.
    """

    isa: Isa
    threads: int
    team: _native.Team = field(repr=False, compare=False)
    _pool: ThreadPoolExecutor | None = field(default=None, repr=False, compare=False)

    def run_ranges(self, count: int, multiple: int, work: Callable[[int, int], Result]) -> list[Result]:
        """Calls work(begin, end) for each range, in parallel, and returns the results in order."""
        blocks = -(-count // multiple)
        parts = max(1, min(self.threads, blocks))
        edges = [min(count, (blocks * part // parts) * multiple) for part in range(parts + 1)]
        ranges = list(itertools.pairwise(edges))
        if self._pool is None or parts == 1:
            return [work(begin, end) for begin, end in ranges]
        return list(self._pool.map(lambda pair: work(*pair), ranges))

    def close(self) -> None:
        """Ends the threads."""
        self.team.close()
        if self._pool is not None:
            self._pool.shutdown()


def make_dispatch(isa: Isa | str | None = None, threads: int | None = None, *, background: bool = False) -> Dispatch:
    """The fastest instruction set and all cores, unless told otherwise. `background`: its threads let others go first.

    Raises ApiMisuse for an instruction set that this processor lacks, or fewer than one thread.
    """
    choices = available_isas()
    chosen = choices[-1] if isa is None else Isa(isa)
    if chosen not in (*choices, Isa.TILES):
        raise ApiMisuse(f"this processor cannot run {chosen}", hint=f"choose one of {', '.join(choices)}")
    count = thread_count(threads)
    begin = yield_the_processor if background else None
    pool = ThreadPoolExecutor(count, thread_name_prefix="slalom", initializer=begin) if count > 1 else None
    return Dispatch(chosen, count, _native.Team(count, _NICENESS if background else 0), pool)


def thread_count(threads: int | None) -> int:
    """As many as are asked for, or as there are cores. Raises ApiMisuse for fewer than one."""
    count = len(os.sched_getaffinity(0)) if threads is None else threads
    if type(count) is not int or count < 1:
        raise ApiMisuse(f"threads must be a whole number of at least 1, not {count!r:.40}")
    return count


def yield_the_processor() -> None:
    """Lets every other thread of the machine go before the calling one. Linux alone; nothing elsewhere."""
    with contextlib.suppress(AttributeError, OSError):  # a sandbox may refuse it: then it shares alike
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)
