"""Single-use masks r and their images u = W r mod 2^32: what makes everything the device sees uniform.

One mask hides one value of one micro-batch, for all the linear steps that read it. A mask that waits in memory is kept
with its images, as words (decision 0010). It is consumed by use, and nothing gives it back: a retry takes another.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from slalom.arithmetic.dispatch import Dispatch
from slalom.arithmetic.engine import LinearEngine, PreparedMaps
from slalom.arithmetic.fused import Words
from slalom.arithmetic.keystream import ShareOut
from slalom.errors import PrivacyError
from slalom.plan import Plan
from slalom.trusted.model import TrustedModel
from slalom.trusted.randomness import Randomness
from slalom.trusted.recycling import Recycler


@dataclass(frozen=True, repr=False)  # a representation would show the secret
class SpentMask:
    """The words r, int32 [B, M], and for each linear step that reads the value its image u, int32 [B, outputs]."""

    words: Words
    images: Mapping[str, Words]


class Mask:
    """A mask that can be spent once, from the stream of this index. Thread-safe; a second use raises PrivacyError."""

    def __init__(self, words: Words, images: Mapping[str, Words], stream: int = -1) -> None:
        self.stream = stream
        self._secret: SpentMask | None = SpentMask(words, images)
        self._lock = threading.Lock()
        self.held_bytes = sum(image.nbytes for image in images.values()) + words.nbytes

    def spend(self) -> SpentMask:
        """The mask itself, for the one time it is used."""
        with self._lock:
            secret, self._secret = self._secret, None
        if secret is None:
            raise PrivacyError("a mask may be used once")
        return secret

    def cut(self, batch: int) -> Mask:
        """The mask for the first items alone; this one is spent, and the rest of it overwritten."""
        secret = self.spend()
        for array in (secret.words, *secret.images.values()):
            array[batch:].fill(0)
        return Mask(secret.words[:batch], {step: image[:batch] for step, image in secret.images.items()}, self.stream)

    def destroy(self) -> None:
        """Overwrites a mask that was not used."""
        with self._lock:
            secret, self._secret = self._secret, None
        if secret is not None:
            for array in (secret.words, *secret.images.values()):
                array.fill(0)


class MaskMaker:
    """Makes masks by value and batch, exact, from fresh streams. Thread-safe.

    `memory`: of masks, shared by the makers of a session. `seconds` counts the time that took, `inline_seconds` the
    part of it that a request waited for, `made` how many.
    """

    def __init__(
        self,
        model: TrustedModel,
        engine: LinearEngine,
        maps: Mapping[str, PreparedMaps],
        randomness: Randomness,
        dispatch: Dispatch,
        memory: Recycler | None = None,
    ) -> None:
        self.memory = memory or Recycler()
        self._model = model
        self._engine = engine
        self._maps = maps
        self._randomness = randomness
        self._dispatch = dispatch
        self._lock = threading.Lock()
        self.seconds = 0.0
        self.inline_seconds = 0.0
        self.made = 0

    @property
    def share_out(self) -> ShareOut:
        """Shares work out among the threads that this maker has."""
        return self._dispatch.run_ranges

    @property
    def values(self) -> tuple[str, ...]:
        """The values that are hidden, in plan order."""
        return tuple(self._model.flow.consumers)

    def set_bytes(self, batch: int) -> int:
        """Of all masks and images for one micro-batch."""
        consumers = self._model.flow.consumers
        images = sum(self._model.count(step.name) for steps in consumers.values() for step in steps)
        return 4 * batch * (sum(map(self._model.count, consumers)) + images)

    def make(self, value: str, batch: int, *, inline: bool = False) -> Mask:
        """A fresh mask for one value of one micro-batch, with its images."""
        begin = time.perf_counter()
        stream = self._randomness.draw_stream()
        words = self.expand(stream, value, batch)
        images = {}
        for step in self._model.flow.consumers[value]:
            image = self.memory.empty((batch, self._model.count(step.name)))
            maps = self._maps[step.name]
            self._engine.apply(maps, words, image.reshape(batch, *maps.output_shape))
            images[step.name] = image
        self._count(time.perf_counter() - begin, 1, inline=inline)
        return Mask(words.reshape(batch, -1), images, stream)

    def make_all(self, batch: int, take: Callable[[str, Mask], None]) -> None:
        """Makes the masks of one micro-batch, and gives each away once it is there. Raises what `take` raises."""
        for value in self.values:
            take(value, self.make(value, batch))

    def _count(self, seconds: float, made: int, *, inline: bool = False) -> None:
        with self._lock:
            self.seconds += seconds
            self.inline_seconds += seconds if inline else 0.0
            self.made += made

    def expand(self, stream: int, value: str, batch: int) -> Words:
        """The words of a mask from their stream, int32 [B, *shape of the value]."""
        words = self.memory.empty((batch, *self._model.shape(value)))
        self._randomness.expand_words(stream, words.size, self._dispatch.run_ranges, words.reshape(-1))
        return words

    def require_usable(self) -> None:
        """Raises PrivacyError in a forked process, and once the secrets are destroyed."""
        self._randomness.require_usable()


class MaskSet:
    """The masks of one micro-batch of `batch` items, by value, each taken once; `maker` makes what is missing when it
    is taken."""

    def __init__(self, batch: int, masks: Mapping[str, Mask], maker: MaskMaker) -> None:
        self.batch = batch
        self._masks = dict(masks)
        self._maker = maker
        self._made = set(masks)

    @property
    def held_bytes(self) -> int:
        """Of the masks and images that were not taken."""
        return sum(mask.held_bytes for mask in self._masks.values())

    def take(self, value: str) -> SpentMask:
        """The mask for one value, spent: it is in no other hand, and never comes back."""
        self._maker.require_usable()  # LOAD-BEARING: a forked child has this mask too
        if value not in self._made:
            self._made.add(value)
            return self._maker.make(value, self.batch, inline=True).spend()
        mask = self._masks.pop(value, None)
        if mask is None:
            raise PrivacyError("a mask may be used once")
        return mask.spend()

    def cut(self, batch: int) -> MaskSet:
        """The same masks for a micro-batch of fewer items; this set has them no more."""
        if batch == self.batch:
            return self
        masks, self._masks = self._masks, {}
        return MaskSet(batch, {value: mask.cut(batch) for value, mask in masks.items()}, self._maker)

    def destroy(self) -> None:
        """Overwrites every mask that was not taken."""
        masks, self._masks = self._masks, {}
        for mask in masks.values():
            mask.destroy()


def prepare_maps(engine: LinearEngine, model: TrustedModel, plan: Plan) -> dict[str, PreparedMaps]:
    """The chains of all linear steps, by name, as the engine reads them."""
    steps = model.linear_steps.values()
    return {step.name: engine.prepare(step.maps, plan.tensors, model.shape(step.source)) for step in steps}
