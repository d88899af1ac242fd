"""What crossed the boundary, and how long each side worked."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from slalom.arithmetic.pieces import StreamedClaim
from slalom.link.ticket import Post
from slalom.trusted.recorder import Recorder, Side, Span


@dataclass
class Traffic:
    """What crossed the boundary, and how long each side worked. Seconds are busy time, summed over threads.

    `recorder`, where there is one, takes down when it was.
    """

    bytes_to_device: int = 0
    bytes_from_device: int = 0
    device_seconds: float = 0.0
    trusted_seconds: float = 0.0
    exchanges: int = 0
    recorder: Recorder | None = None
    _last_arrival: float = field(default=0.0, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def sent(self, words: np.ndarray | Post) -> None:
        """Counts one array towards the device."""
        with self._lock:
            self.bytes_to_device += words.nbytes
            self.exchanges += 1

    def waited(self, seconds: float) -> None:
        """Takes back what was counted as work and was none."""
        with self._lock:
            self.trusted_seconds -= seconds

    def received(self, claims: Sequence[object], seconds: float) -> None:
        """Counts the claims of one answer and the time the device took."""
        with self._lock:
            known = (np.ndarray, StreamedClaim)
            self.bytes_from_device += sum(claim.nbytes for claim in claims if isinstance(claim, known))
            self.device_seconds += seconds

    def follow(self, claim: StreamedClaim, step: str, micro_batch: int) -> None:
        """Has a claim in pieces tell, once it is read, when the last came; the wait for them was not work."""

        def arrived(arrived_at: float, waited: float) -> None:
            with self._lock:
                begin = max(claim.asked_at, self._last_arrival)  # what came one after another is not counted twice
                self._last_arrival = max(self._last_arrival, arrived_at)
                self.device_seconds += max(0.0, arrived_at - begin)
                self.trusted_seconds -= waited
            self.record(step, Side.DEVICE, micro_batch, begin, max(begin, arrived_at))

        claim.on_arrival = arrived

    def record(self, step: str, side: Side, micro_batch: int, begin: float, end: float) -> None:
        """Takes a span down, if somebody wants to know."""
        if self.recorder is not None:
            self.recorder.add(Span(step, side, micro_batch, begin, end))
