"""The mask bank: sets of masks made ahead, in memory or sealed outside, each for one micro-batch and one use.

A request reserves its sets before anything of it crosses. What is reserved and not used is overwritten: nothing comes
back. A set may serve a smaller micro-batch, and then the rest of it is let go.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from slalom.errors import ApiMisuse, MaskError, SlalomError, afresh
from slalom.trusted.masks import Mask, MaskMaker, MaskSet
from slalom.trusted.vault import Record, Vault

GIGABYTE = 10**9


class WhenEmpty(StrEnum):
    """What a request does that finds too few masks."""

    WAIT = "wait"
    COMPUTE = "compute"
    FAIL = "fail"


@dataclass(frozen=True)
class MaskBankOptions:
    """How masks are made ahead. Images are counted, whatever the requests.

    request: images of the largest usual request, whose micro-batches masks are made for; smaller ones are served too.
    target: images that masks are kept ready for; made in the background once fewer than `low` are (half of `target` by
    default). memory: bytes that waiting masks may take here. spill: a folder for those beyond.
    when_empty: a request that finds too few masks waits for them, makes them itself, or is refused.
    """

    request: int
    target: int
    low: int | None = None
    memory: int = 4 * GIGABYTE
    spill: Path | None = None
    when_empty: WhenEmpty = WhenEmpty.COMPUTE

    def __post_init__(self) -> None:
        counts = {"request": self.request, "target": self.target, "memory": self.memory}
        for name, count in counts.items():
            if type(count) is not int or count < 1:
                raise ApiMisuse(f"the mask bank's {name} must be a whole number of at least 1, not {count!r:.40}")
        if self.low is not None and (type(self.low) is not int or not 0 <= self.low <= self.target):
            raise ApiMisuse(
                f"the mask bank's low mark must be a whole number from 0 to its target, not {self.low!r:.40}"
            )
        if self.target < self.request:
            raise ApiMisuse(
                f"the mask bank's target of {self.target} images is less than one request of {self.request}",
                hint="keep masks for at least one request",
            )

    @property
    def low_mark(self) -> int:
        """Images for which masks must be ready, or more are made: for one request at least."""
        return max(self.request, self.target // 2 if self.low is None else self.low)


@dataclass(frozen=True)
class MaskFigures:
    """What is in the bank, in images and bytes, and what became of masks so far, in images.

    `used`: reserved by requests. `lost`: spilled, and refused when they were read. `waited_seconds`: by requests.
    """

    ready_images: int = 0
    ready_bytes: int = 0
    spilled_images: int = 0
    spilled_bytes: int = 0
    used_images: int = 0
    lost_images: int = 0
    waited_seconds: float = 0.0


class MaskBank:
    """Sets of masks by the size of their micro-batch, those in memory first. Thread-safe."""

    def __init__(
        self,
        maker: MaskMaker,
        options: MaskBankOptions | None = None,
        vault: Vault | None = None,
    ) -> None:
        self.maker = maker
        self.options = options
        self._vault = vault
        self._ready: dict[int, deque[MaskSet]] = {}
        self._spilled: dict[int, deque[_SpilledSet]] = {}
        self._changed = threading.Condition()
        self._failure: SlalomError | None = None
        self._destroyed = False
        self._used = self._lost = 0
        self._waited = 0.0

    # ------------------------------------------------------------ filling

    def prepare(self, batch: int, maker: MaskMaker | None = None) -> None:
        """Makes one set for a micro-batch of `batch` items, in memory where there is room, else sealed outside.

        `maker`: another than that which makes masks where they are taken.

        Raises MaskError where it cannot be sealed.
        """
        if self._vault is not None and not self._fits(batch):
            spilled = self._spill_new(batch, maker or self.maker)
            with self._changed:
                self._spilled.setdefault(batch, deque()).append(spilled)
                self._changed.notify_all()
            return
        masks: dict[str, Mask] = {}
        try:
            (maker or self.maker).make_all(batch, masks.__setitem__)
        except BaseException:
            for mask in masks.values():
                mask.destroy()
            raise
        self._add(MaskSet(batch, masks, self.maker))

    def bring_in(self, maker: MaskMaker) -> bool:
        """Opens one spilled set for which there is room in memory; False where there is none.

        A set that does not open is gone.
        """
        with self._changed:
            batch = next((batch for batch, sets in self._spilled.items() if sets and self._fits_locked(batch)), None)
            spilled = None if batch is None else self._spilled[batch].popleft()
        if spilled is None:
            return False
        with suppress(MaskError):  # counted as lost; others may be there
            self._add(self._open(spilled, maker))
        return True

    def wanted(self, usual: Sequence[int], turn: int, *, filling: bool) -> int | None:
        """The size of the set to make next; None where enough are there, or where there is no place for one more.

        usual: the micro-batches of a usual request, which must always find its sets. turn: of them, whose turn it is
        where only the target is not reached; that counts while the bank is `filling`, or is below its low mark.
        """
        with self._changed:
            if self.options is None or self._destroyed:
                return None
            missing = [batch for batch, size in zip(usual, self._choose(usual), strict=True) if size is None]
            below = self._images() < (self.options.target if filling else self.options.low_mark)
            batch = missing[0] if missing else turn if below else None
            return batch if batch is None or self._vault is not None or self._fits_locked(batch) else None

    def fail(self, error: SlalomError) -> None:
        """Says that nothing more will be made: whoever waits for masks is told this error."""
        with self._changed:
            self._failure = error
            self._changed.notify_all()

    def wait_for_change(self, seconds: float) -> None:
        """Sleeps until something was taken or added, so many seconds at most."""
        with self._changed:
            if not self._destroyed:
                self._changed.wait(seconds)

    # ------------------------------------------------------------ taking

    def reserve(self, batches: Sequence[int], timeout_seconds: float) -> list[MaskSet]:
        """A set for each micro-batch, in order, in no other hand. Sets that are missing are made as they are taken, or
        waited for.

        Raises MaskError: with nothing taken, where masks are missing and none may be made; with the request's masks
        gone, where a spilled set is not what was sealed.
        """
        policy = WhenEmpty.COMPUTE if self.options is None else self.options.when_empty
        taken: list[MaskSet | _SpilledSet | None] = []
        with self._changed:
            if policy is WhenEmpty.WAIT:
                self._wait_until_there(batches, timeout_seconds)
            if policy is not WhenEmpty.COMPUTE and not self._has(batches):
                raise MaskError("no masks are ready for a request of this size", hint="wait, or choose compute")
            taken = [self._pop(size) for size in self._choose(batches)]
            self._used += sum(batches)
            self._changed.notify_all()
        sets: list[MaskSet] = []
        try:
            for index, batch in enumerate(batches):
                found, taken[index] = taken[index], None
                opened = self._open(found, self.maker) if isinstance(found, _SpilledSet) else found
                sets.append(MaskSet(batch, {}, self.maker) if opened is None else opened.cut(batch))
        except BaseException:
            for item in (*sets, *taken):
                self._drop(item)
            raise
        return sets

    @property
    def figures(self) -> MaskFigures:
        """What is there and what was done."""
        with self._changed:
            ready = [item for sets in self._ready.values() for item in sets]
            spilled = [item for sets in self._spilled.values() for item in sets]
            return MaskFigures(
                ready_images=sum(item.batch for item in ready),
                ready_bytes=sum(item.held_bytes for item in ready),
                spilled_images=sum(item.batch for item in spilled),
                spilled_bytes=sum(item.sealed_size for item in spilled),
                used_images=self._used,
                lost_images=self._lost,
                waited_seconds=self._waited,
            )

    def drop_ready(self) -> None:
        """Overwrites and forgets what waits in memory."""
        with self._changed:
            sets = [item for group in self._ready.values() for item in group]
            self._ready.clear()
            self._changed.notify_all()
        for item in sets:
            item.destroy()

    def destroy(self) -> None:
        """Overwrites and forgets every mask that was not used."""
        with self._changed:
            self._spilled.clear()
            self._destroyed = True
        self.drop_ready()
        if self._vault is not None:
            self._vault.destroy()

    # ------------------------------------------------------------ what lies outside

    def _spill_new(self, batch: int, maker: MaskMaker) -> _SpilledSet:
        """A fresh set, each mask sealed as soon as it is made. Its words are kept as their stream's index alone."""
        parts: list[_SpilledMask] = []
        vault = self._require_vault()

        def seal(value: str, mask: Mask) -> None:
            stream, images = mask.stream, mask.spend().images
            records = {
                step: vault.seal(image, _label(stream, value, step), maker.share_out) for step, image in images.items()
            }
            parts.append(_SpilledMask(value, stream, records))
            for image in images.values():
                image.fill(0)

        try:
            maker.make_all(batch, seal)
        except BaseException:
            self._forget(parts)
            raise
        return _SpilledSet(batch, tuple(parts))

    def _open(self, spilled: _SpilledSet, maker: MaskMaker) -> MaskSet:
        masks: dict[str, Mask] = {}
        vault, left = self._require_vault(), list(spilled.parts)
        try:
            while left:
                part = left[0]
                images = {
                    step: vault.open(record, maker.share_out, maker.memory) for step, record in part.records.items()
                }
                words = maker.expand(part.stream, part.value, spilled.batch)
                masks[part.value] = Mask(words.reshape(spilled.batch, -1), images, part.stream)
                left.pop(0)
        except BaseException:
            for mask in masks.values():
                mask.destroy()
            self._forget(left)
            with self._changed:
                self._lost += spilled.batch
            raise
        return MaskSet(spilled.batch, masks, self.maker)

    def _forget(self, parts: Sequence[_SpilledMask]) -> None:
        for part in parts:
            for record in part.records.values():
                self._require_vault().forget(record)

    def _drop(self, item: MaskSet | _SpilledSet | None) -> None:
        if isinstance(item, MaskSet):
            item.destroy()
        elif item is not None:
            self._forget(item.parts)

    def _require_vault(self) -> Vault:
        if self._vault is None:
            raise ApiMisuse("this mask bank spills nothing")
        return self._vault

    # ------------------------------------------------------------ with the lock held

    def _add(self, made: MaskSet) -> None:
        with self._changed:
            if not self._destroyed:
                self._ready.setdefault(made.batch, deque()).append(made)
                self._changed.notify_all()
                return
        made.destroy()

    def _wait_until_there(self, batches: Sequence[int], timeout_seconds: float) -> None:
        if self.options is not None and sum(batches) > self.options.target:
            return  # they will never be there at once
        begin = time.monotonic()
        self._changed.wait_for(
            lambda: self._has(batches) or self._failure is not None or self._destroyed, timeout_seconds
        )
        self._waited += time.monotonic() - begin
        if not self._has(batches) and self._failure is not None:
            raise afresh(self._failure)

    def _has(self, batches: Sequence[int]) -> bool:
        return None not in self._choose(batches)

    def _choose(self, batches: Sequence[int]) -> list[int | None]:
        """The size of the set that each micro-batch gets: its own, or else the next larger that is left."""
        left = self._counts()
        chosen: list[int | None] = []
        for batch in batches:
            size = min((size for size, count in left.items() if count and size >= batch), default=None)
            chosen.append(size)
            if size is not None:
                left[size] -= 1
        return chosen

    def _counts(self) -> Counter[int]:
        counts: Counter[int] = Counter()
        for groups in (self._ready, self._spilled):
            counts.update({batch: len(sets) for batch, sets in groups.items()})
        return counts

    def _pop(self, size: int | None) -> MaskSet | _SpilledSet | None:
        if size is None:
            return None
        if ready := self._ready.get(size):
            return ready.popleft()
        return self._spilled[size].popleft()

    def _images(self) -> int:
        return sum(batch * count for batch, count in self._counts().items())

    def _held_bytes(self) -> int:
        return sum(item.held_bytes for sets in self._ready.values() for item in sets)

    def _fits(self, batch: int) -> bool:
        with self._changed:
            return self._fits_locked(batch)

    def _fits_locked(self, batch: int) -> bool:
        budget = None if self.options is None else self.options.memory
        return budget is None or self._held_bytes() + self.maker.set_bytes(batch) <= budget


@dataclass(frozen=True)
class _SpilledMask:
    """A mask outside: its value, the stream of its words, and where its images lie, by step."""

    value: str
    stream: int
    records: dict[str, Record]


@dataclass(frozen=True)
class _SpilledSet:
    """The masks of one micro-batch, outside."""

    batch: int
    parts: tuple[_SpilledMask, ...]

    @property
    def sealed_size(self) -> int:
        """Bytes that they take there."""
        return sum(record.sealed_size for part in self.parts for record in part.records.values())


def _label(stream: int, value: str, step: str) -> bytes:
    """What an image belongs to: the mask, by the index of its stream, the value and the step."""
    return b"\0".join((stream.to_bytes(8, "big"), value.encode(), step.encode()))
