"""What a device must answer: names and arrays, so that a process boundary can lie between the two sides."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from slalom.arithmetic.pieces import Passage
from slalom.plan import Plan


@dataclass(frozen=True, eq=False)
class Claim:
    """What the device says a linear step gives. Untrusted: neither the name, nor the shape, nor the dtype is believed.

    From an honest device `words` is int32 [B, *output shape], in two's complement mod 2**32.
    """

    step: str
    words: NDArray[Any]


class DevicePort(Protocol):
    """The untrusted fast machine. One caller at a time; every array has a leading batch axis and is C-contiguous."""

    def load(self, plan: Plan) -> None:
        """Takes the network whose linear steps it will compute."""

    def run_ahead(self, activation: NDArray[np.int16]) -> Iterator[Claim]:
        """The claim of every linear step, in plan order, from the input activation alone (`verified`).

        `activation` is int16 [B, *input shape]; the device mirrors every step between the linear ones.
        """

    def compute(self, step_names: Sequence[str], words: NDArray[np.int16 | np.int32]) -> Sequence[NDArray[np.int32]]:
        """The claims of the named linear steps, in that order, all of which read one value (`blinded`, `private`).

        `words` is that value: int32 [B, *shape], any words (blinded), or int16 where the device may see it.
        """

    def run(self, activation: NDArray[np.int16]) -> Sequence[NDArray[np.float32]]:
        """The outputs of the whole network, float32 [B, *item shape], in the plan's order (`device`)."""

    def close(self) -> None:
        """Ends the device; may be called twice."""


Wait = Callable[[], None]
Place = NDArray[Any] | Passage  # where words come from and claims go: an array, or a way through a ring


class AheadRun(Protocol):
    """A whole network under way on a device."""

    def give(self, position: int, out: Place) -> Wait:
        """Puts the claim of a linear step into `out` as soon as it is there; the function waits for that."""


@runtime_checkable
class SlotDevice(DevicePort, Protocol):
    """A device that works beside who asks it: what it is given to do it does in order, and writes answers where told.

    Arrays of answers are int32 [B, *output shape], or uint8 [B, M, 3] for the low three bytes of each word. What goes
    through a ring goes in the order of the calls: a piece is written once its place was read.
    """

    @property
    def streams(self) -> bool:
        """Whether it fills and empties rings beside all else that it does, so that words may come through one."""

    def map_memory(self, memory: NDArray[np.uint8], batch: int) -> None:
        """Announces memory in which arrays will lie, so that it can be reached without a copy, and the largest batch.

        Raises MemoryError, with what it would take and what there is, where the device has no room for such batches.
        """

    def unmap_memory(self) -> None:
        """Forgets it; nothing is under way there."""

    def begin_compute(self, step_names: Sequence[str], words: Place, outs: Sequence[Place]) -> Sequence[Wait]:
        """As `compute`, with a place for each answer; a function for each waits until it is there.

        Words in pieces are still to come; this does not wait for them.
        """

    def begin_ahead(self, activation: NDArray[np.int16]) -> AheadRun:
        """As `run_ahead`, computing every claim at once."""
