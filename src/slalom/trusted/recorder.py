"""When each side worked on what, in one request: names and times, never a value."""

from __future__ import annotations

import threading
from enum import StrEnum
from typing import NamedTuple


class Side(StrEnum):
    """Whose time it was. `device` is from the ask to the arrival, so the link is in it: from inside they look alike."""

    DEVICE = "device"
    TRUSTED = "trusted"


class Span(NamedTuple):
    """Seconds of `time.perf_counter` that one micro-batch spent on one step.

    `step` is the one a device answered, or the one that the trusted side ends by asking for ("output" at the end).
    """

    step: str
    side: Side
    micro_batch: int
    begin: float
    end: float


class Recorder:
    """Takes down spans. Thread-safe."""

    def __init__(self) -> None:
        self._spans: list[Span] = []
        self._lock = threading.Lock()

    def add(self, span: Span) -> None:
        """Takes one down."""
        with self._lock:
            self._spans.append(span)

    def take(self) -> tuple[Span, ...]:
        """Those since the last call, by their beginning."""
        with self._lock:
            spans, self._spans = self._spans, []
        return tuple(sorted(spans, key=lambda span: span.begin))
