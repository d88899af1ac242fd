"""Memory for masks, used again as soon as nobody holds what was in it: fresh memory costs half of making a mask."""

from __future__ import annotations

import math
import weakref
from collections import deque

import numpy as np
from numpy.typing import NDArray

from slalom.arithmetic.fused import Words
from slalom.trusted.workspace import Workspace


class Recycler:
    """Gives arrays whose memory comes back by itself. Thread-safe. What was in it is there until it is written again.

    What it keeps is the most that was in use at once, of each size.
    """

    def __init__(self) -> None:
        self._workspace = Workspace()
        self._returned: deque[NDArray[np.uint8]] = deque()
        self._ended = False

    def empty(self, shape: tuple[int, ...]) -> Words:
        """An uninitialised array of int32, on a cache line; its memory is free again once it and its views are gone."""
        while self._returned:
            self._workspace.give_back(self._returned.popleft())
        size = 4 * math.prod(shape)
        buffer = self._workspace.lend(max(size, 1))
        # LOAD-BEARING: of memory, not of an array, so that every view holds this root and none goes around it
        root = np.frombuffer(buffer.data[:size], np.int32)
        weakref.finalize(root, self._take_back, buffer).atexit = False
        return root.reshape(shape)

    def end(self) -> None:
        """Keeps nothing any more: memory goes to the system, which clears it before anybody else has it."""
        self._ended = True
        self._returned.clear()
        self._workspace.forget()

    def _take_back(self, buffer: NDArray[np.uint8]) -> None:
        """Without a lock: this may run in the middle of anything, in any thread."""
        if not self._ended:
            self._returned.append(buffer)
