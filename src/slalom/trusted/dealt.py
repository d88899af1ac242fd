"""Masks whose images another worker makes: the dealer. It is told seeds, and is trusted to keep them from the device.

It is not trusted to compute rightly: an image that is wrong makes a result wrong, which the check of that result finds.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from slalom.arithmetic.dispatch import Dispatch
from slalom.arithmetic.engine import LinearEngine, PreparedMaps
from slalom.arithmetic.fused import Words
from slalom.arithmetic.keystream import SEED_SIZE
from slalom.errors import DeviceError, MaskError, WireError
from slalom.plan.steps import Shape
from slalom.trusted.masks import Mask, MaskMaker
from slalom.trusted.model import TrustedModel
from slalom.trusted.randomness import Randomness
from slalom.trusted.recycling import Recycler

_IN_FLIGHT = 2  # values whose images are on their way while those of another are copied


class Dealt(Protocol):
    """Images to come."""

    def result(self, timeout_seconds: float) -> Sequence[Any]:
        """For each step that was asked about, int32 [B, *output shape], in memory that others may write to."""


class Dealer(Protocol):
    """A worker that makes mask images from seeds."""

    def deal(self, step_names: Sequence[str], seed: bytes | bytearray, shape: Shape) -> Dealt:
        """Asks for the images under these steps of the words int32 [B, *shape] that the seed stands for."""


class _Asked(NamedTuple):
    value: str
    stream: int
    dealt: Dealt


class DealtMaker(MaskMaker):
    """Makes masks with images from a dealer. Words are expanded here, so that it cannot choose them. Thread-safe.

    Where the dealer fails, this and every later call raises MaskError.
    """

    def __init__(
        self,
        dealer: Dealer,
        model: TrustedModel,
        engine: LinearEngine,
        maps: Mapping[str, PreparedMaps],
        randomness: Randomness,
        dispatch: Dispatch,
        timeout_seconds: float,
        memory: Recycler | None = None,
    ) -> None:
        super().__init__(model, engine, maps, randomness, dispatch, memory)
        self._dealer = dealer
        self._timeout_seconds = timeout_seconds
        self._turn = threading.Lock()
        self.bytes_to_dealer = 0
        self.bytes_from_dealer = 0

    def make_all(self, batch: int, take: Callable[[str, Mask], None]) -> None:
        """As `MaskMaker.make_all`; asks for the images of the next values while those of one arrive."""
        with self._turn:
            begin = time.perf_counter()
            asked: deque[_Asked] = deque()
            try:
                for value in self.values:
                    asked.append(self._ask(value, batch))
                    if len(asked) > _IN_FLIGHT:
                        take(*self._receive(asked.popleft(), batch))
                while asked:
                    take(*self._receive(asked.popleft(), batch))
            except (DeviceError, WireError) as error:
                raise MaskError(f"the dealer failed: {error}", hint="masks can be made here: leave it out") from error
            self._count(time.perf_counter() - begin, len(self.values))

    def _ask(self, value: str, batch: int) -> _Asked:
        stream = self._randomness.draw_stream()
        seed = self._randomness.seed_of(stream)
        steps = [step.name for step in self._model.flow.consumers[value]]
        dealt = self._dealer.deal(steps, seed, (batch, *self._model.shape(value)))
        seed[:] = bytes(SEED_SIZE)
        self.bytes_to_dealer += SEED_SIZE
        return _Asked(value, stream, dealt)

    def _receive(self, asked: _Asked, batch: int) -> tuple[str, Mask]:
        words = self.expand(asked.stream, asked.value, batch).reshape(batch, -1)  # while the dealer works
        steps = self._model.flow.consumers[asked.value]
        arrived = asked.dealt.result(self._timeout_seconds)
        images = {step.name: self._copy(image) for step, image in zip(steps, arrived, strict=True)}
        self.bytes_from_dealer += sum(image.nbytes for image in images.values())
        return asked.value, Mask(words, images, asked.stream)

    def _copy(self, image: np.ndarray) -> Words:
        """A copy that nobody else can reach, int32 [B, outputs]."""
        flat = image.reshape(-1)
        copy = self.memory.empty(flat.shape)
        self._dispatch.run_ranges(len(flat), 2**16, lambda begin, end: np.copyto(copy[begin:end], flat[begin:end]))
        return copy.reshape(len(image), -1)
