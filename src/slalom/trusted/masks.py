"""Single-use masks r and their images u = W r mod 2^32: what makes everything the device sees uniform.

One mask hides one value of one micro-batch, for all the linear steps that read it. A mask that waits is kept with its
images, as words: expanding it again when it is used would hold every other thread up (decision 0010). It is consumed by
use, and nothing gives it back: a retry takes another.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

from slalom.arithmetic.engine import LinearEngine, PreparedMaps
from slalom.arithmetic.fused import Words
from slalom.errors import PrivacyError
from slalom.trusted.model import TrustedModel
from slalom.trusted.randomness import Randomness


@dataclass(frozen=True, repr=False)  # a representation would show the secret
class SpentMask:
    """The words r, int32 [B, M], and for each linear step that reads the value its image u, int32 [B, outputs]."""

    words: Words
    images: Mapping[str, Words]


class Mask:
    """A mask that can be spent once. Thread-safe; a second use raises PrivacyError."""

    def __init__(self, words: Words, images: Mapping[str, Words]) -> None:
        self._secret: SpentMask | None = SpentMask(words, images)
        self._lock = threading.Lock()
        self.image_bytes = sum(image.nbytes for image in images.values())
        self.held_bytes = self.image_bytes + words.nbytes

    def spend(self) -> SpentMask:
        """The mask itself, for the one time it is used."""
        with self._lock:
            secret, self._secret = self._secret, None
        if secret is None:
            raise PrivacyError("a mask may be used once")
        return secret

    def destroy(self) -> None:
        """Overwrites a mask that was not used."""
        with self._lock:
            secret, self._secret = self._secret, None
        if secret is not None:
            for array in (secret.words, *secret.images.values()):
                array.fill(0)


class MaskBank:
    """Masks made ahead, by value and batch. An empty bank makes the mask inside, at once.

    `seconds` counts the time spent making masks, `inline_seconds` the part of it that a request waited for, `made`
    how many there were.
    """

    def __init__(
        self, model: TrustedModel, engine: LinearEngine, maps: Mapping[str, PreparedMaps], randomness: Randomness
    ) -> None:
        self._model = model
        self._engine = engine
        self._maps = maps
        self._randomness = randomness
        self._ready: dict[tuple[str, int], deque[Mask]] = {}
        self._lock = threading.Lock()
        self.seconds = 0.0
        self.inline_seconds = 0.0
        self.made = 0

    def prepare(self, batch: int) -> None:
        """Makes one mask for every hidden value of one micro-batch of `batch` items."""
        for value in self._model.flow.consumers:
            mask = self._make(value, batch)
            with self._lock:
                self._ready.setdefault((value, batch), deque()).append(mask)

    def take(self, value: str, batch: int) -> SpentMask:
        """A mask for one value of one micro-batch, spent: it is in no other hand, and never comes back."""
        with self._lock:
            ready = self._ready.get((value, batch))
            mask = ready.popleft() if ready else None
        if mask is None:
            before = self.seconds
            mask = self._make(value, batch)
            self.inline_seconds += self.seconds - before
        self._randomness.require_usable()  # LOAD-BEARING: a forked child has this mask too
        return mask.spend()

    def destroy(self) -> None:
        """Overwrites and forgets every mask that was not used."""
        with self._lock:
            masks = [mask for ready in self._ready.values() for mask in ready]
            self._ready.clear()
        for mask in masks:
            mask.destroy()

    @property
    def held_bytes(self) -> int:
        """Masks and mask images that wait in the bank, in bytes."""
        with self._lock:
            return sum(mask.held_bytes for ready in self._ready.values() for mask in ready)

    def _make(self, value: str, batch: int) -> Mask:
        begin = time.perf_counter()
        shape = (batch, self._model.count(value))
        stream = self._randomness.draw_stream()
        words = self._randomness.expand_words(stream, batch * shape[1]).reshape(batch, *self._model.shape(value))
        images = {
            step.name: self._engine.apply(self._maps[step.name], words).reshape(batch, -1)
            for step in self._model.flow.consumers[value]
        }
        with self._lock:
            self.seconds += time.perf_counter() - begin
            self.made += 1
        return Mask(words.reshape(shape), images)
