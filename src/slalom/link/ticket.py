"""What an ask gives whoever made it: answers to come."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from numpy.typing import NDArray

from slalom.arithmetic.pieces import StreamedClaim, StreamedWords
from slalom.link.conversation import Arrivals


def do_nothing() -> None:
    """Nothing is left to do."""


class Ticket:
    """Answers to come, to be taken once. `promised`: an array, or a claim in pieces, for each thing that was asked."""

    def __init__(
        self, arrivals: Arrivals[NDArray[Any]], promised: Sequence[StreamedClaim | None], release: Callable[[], None]
    ) -> None:
        self._arrivals = arrivals
        self._promised = promised
        self._release = release
        self._asked_at = time.perf_counter()
        self.on_taken: Callable[[], None] = do_nothing

    def result(self, timeout_seconds: float) -> list[NDArray[Any] | StreamedClaim]:
        """The answers, in the order they were asked for. Raises DeviceError where one does not come in time.

        A claim in pieces may be still to come.
        """
        answers = [claim or self._arrivals.take(timeout_seconds) for claim in self._promised]
        self._release()
        self.on_taken()
        return answers

    @property
    def seconds(self) -> float:
        """From the ask to the last answer, once it is there."""
        return max(0.0, self._arrivals.arrived_at - self._asked_at)

    def start(self) -> None:
        """Has time count from now on: the words of an ask that was made before they were have gone."""
        self._asked_at = time.perf_counter()
        for claim in self._promised:
            if claim is not None:
                claim.asked_at = self._asked_at


class Post(NamedTuple):
    """An ask that was made before its words: they go to the device as a pass writes them to `words`."""

    words: StreamedWords
    ticket: Ticket

    @property
    def nbytes(self) -> int:
        """Of the words."""
        return self.words.nbytes
