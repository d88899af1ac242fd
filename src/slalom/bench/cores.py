"""Keeping the trusted process on so many cores: not only its pool, but every thread that it has."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def kept_to_cores(count: int) -> Iterator[None]:
    """Binds every thread of this process to the first `count` of its cores, and lets them go again.

    Threads that start meanwhile inherit it, and so do processes: start those before. Linux alone; nothing elsewhere.
    """
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    allowed = os.sched_getaffinity(0)
    _bind(set(sorted(allowed)[:count]))
    try:
        yield
    finally:
        _bind(allowed)


def usable_cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _bind(cores: set[int]) -> None:
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(ProcessLookupError):  # a thread that ended meanwhile
            os.sched_setaffinity(int(task.name), cores)
