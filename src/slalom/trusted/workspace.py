"""Memory for values on their way through the network, used again and again.

Fresh memory costs more than it seems: the kernel clears every page before it is written once.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from slalom.arithmetic.memory import aligned_empty

_SLACK = 2  # a buffer serves arrays down to half its size


class Workspace:
    """Buffers that are lent and given back. Thread-safe. What was in one is there until it is written again."""

    def __init__(self) -> None:
        self._free: list[NDArray[np.uint8]] = []
        self._lock = threading.Lock()

    def lend(self, size: int) -> NDArray[np.uint8]:
        """At least `size` bytes, uninitialised, on a cache line. Whoever borrows gives them back once, or never."""
        with self._lock:
            fitting = [index for index, buffer in enumerate(self._free) if size <= buffer.nbytes <= _SLACK * size]
            if fitting:
                return self._free.pop(min(fitting, key=lambda index: self._free[index].nbytes))
        return aligned_empty((size,), np.uint8)

    def give_back(self, buffer: NDArray[np.uint8]) -> None:
        """Takes back what was lent, of which nobody reads anything any more."""
        with self._lock:
            self._free.append(buffer)

    def forget(self) -> None:
        """Lets every buffer go that is not lent."""
        with self._lock:
            self._free.clear()

    def destroy(self) -> None:
        """Overwrites and forgets every buffer that is not lent."""
        with self._lock:
            buffers, self._free = self._free, []
        for buffer in buffers:
            buffer.fill(0)


class Borrowed:
    """What one walk has borrowed, by the value that lies in it."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._buffers: dict[str, NDArray[np.uint8]] = {}

    def room(self, name: str, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        """Memory for the value of that name."""
        size = math.prod(shape) * np.dtype(dtype).itemsize
        buffer = self._buffers[name] = self._workspace.lend(size)
        return buffer[:size].view(dtype).reshape(shape)

    def forget(self, name: str, others: Iterable[NDArray[Any]]) -> None:
        """Gives back the memory of a value that is not read any more, unless one of `others` is a view of it."""
        buffer = self._buffers.get(name)
        if buffer is not None and not any(np.may_share_memory(buffer, other) for other in others):
            self._workspace.give_back(self._buffers.pop(name))

    def give_back_all(self) -> None:
        """Gives back the rest, at the end."""
        for buffer in self._buffers.values():
            self._workspace.give_back(buffer)
        self._buffers.clear()
