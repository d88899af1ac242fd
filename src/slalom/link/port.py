"""What a device must answer: names and arrays, so that a process boundary can lie between the two sides."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

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
