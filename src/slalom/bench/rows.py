"""One row of the comparison: an engine or a protection level, on so many cores, as figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from slalom.bench.timing import Spread, spread_of


@dataclass(frozen=True)
class Stages:
    """Where the time of one image goes, in seconds. The first two add up to a request's time, masks are made before.

    trusted: busy time of the trusted side. wait: what is left of the request, in which it waits for the device and the
    link. device: from each ask to its answer, summed over micro-batches that are in flight together. masks: made ahead.
    setup: of the session, once.
    """

    trusted: float
    wait: float
    device: float
    masks: float
    setup: float


@dataclass(frozen=True)
class Row:
    """One measurement of one network.

    name: a protection level, or an engine by what it truly computes. in_tee: a float or int8 engine, or the level
    enclave, that computes everything on the trusted cores. cores: threads it may use; 0 for the GPU alone.
    batch: images of a request, cut into `micro_batches`. rate: images a second over requests. latency: seconds of a
    request. Bytes are per image and way; `memory_bytes` is the least that the trusted side moves for what crosses:
    what crosses, and once more for the masks and mask images of what is blinded.
    """

    name: str
    in_tee: bool
    cores: int
    batch: int
    micro_batches: int
    requests: int
    rate: Spread
    latency: Spread
    bytes_to_device: float = 0.0
    bytes_from_device: float = 0.0
    memory_bytes: float = 0.0
    stages: Stages | None = None
    detail: str = ""

    @property
    def crossing_bytes(self) -> float:
        """Bytes of an image that cross, both ways."""
        return self.bytes_to_device + self.bytes_from_device


def rates_of(seconds: Sequence[float], images: int) -> tuple[Spread, Spread]:
    """Images a second and seconds, over requests of `images` each."""
    return spread_of([images / item for item in seconds]), spread_of(seconds)
