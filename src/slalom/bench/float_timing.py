"""What is asked of the process that holds the float network, and what it answers: plain values, without torch."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from slalom.bench.timing import Effort


class Engine(StrEnum):
    """Whose speed is measured, and in which numbers."""

    GPU = "torch fp16, GPU"
    TORCH = "torch fp32"
    OPENVINO_FP32 = "openvino fp32"
    OPENVINO_BF16 = "openvino bf16"
    OPENVINO_INT8 = "openvino int8"

    @property
    def family(self) -> str:
        """What `--baselines` calls it."""
        return {Engine.GPU: "gpu", Engine.TORCH: "torch"}.get(self, "openvino")


FAMILIES = ("gpu", "torch", "openvino")


@dataclass(frozen=True)
class TimeFloat:
    """Time the float network in one engine on `images` [B, ...], with `threads` threads (0: the GPU alone)."""

    engine: Engine
    threads: int
    images: np.ndarray
    effort: Effort


@dataclass(frozen=True)
class FloatTiming:
    """Seconds of each request of `images` images. `detail` says what was found to run."""

    seconds: tuple[float, ...]
    images: int
    detail: str


@dataclass(frozen=True)
class MeasureCopies:
    """Time copies of `size` bytes between pinned host memory and the GPU."""

    size: int = 256 * 2**20


@dataclass(frozen=True)
class CopyRates:
    """Bytes a second of copies from pinned host memory to the GPU of that name, and back; `both_ways` is the sum of the
    two while they run at once."""

    device: str
    to_device: float
    from_device: float
    both_ways: float


@dataclass(frozen=True)
class Versions:
    """Which torch and openvino the other process has; empty where it has none."""

    torch: str
    openvino: str


@dataclass(frozen=True)
class TellVersions:
    """Ask for `Versions`."""


Question = TimeFloat | MeasureCopies | TellVersions
Answer = FloatTiming | CopyRates | Versions | None
