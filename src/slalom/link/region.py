"""Memory that both sides see, cut into slots whose places and sizes the trusted side alone decides.

The trusted side creates, sizes and maps a region. Under Linux it is a memory file, sealed so that nobody can shrink it
under a reader; where there is none (Gramine) a file of /dev/shm, which nobody seals. A conversation without shared
memory uses a region of each side's own, and the bytes travel behind their header.
"""

from __future__ import annotations

import fcntl
import math
import mmap
import os
import secrets
import threading
import time
import weakref
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from slalom.arithmetic.pieces import PIECE_NUMBERS, Passage, Ring
from slalom.errors import DeviceError, WireError
from slalom.link.message import NAME_SIZE, SHM_FOLDER, SHM_PREFIX, SLOT_ALIGNMENT, Bulk, Element, Errand, Geometry

_MEMORY_FACTS = Path("/proc/meminfo")
_COUNTER_STRIDE = 64  # words: far enough that neither side's counter slows the other's down
_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL


class Region:
    """A mapping of `geometry.size` bytes and views of its slots. The memory goes when the last view does."""

    def __init__(self, memory: mmap.mmap, geometry: Geometry) -> None:
        self._bytes = memoryview(memory)
        self.geometry = geometry
        self._base = self.whole.__array_interface__["data"][0]

    @property
    def whole(self) -> NDArray[np.uint8]:
        """All of it."""
        return np.frombuffer(self._bytes, np.uint8)

    def ask(self, slot: int, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        """A view of an ask slot as an array, from its first byte. Raises WireError for what lies outside of it."""
        return self._view(slot, self.geometry.ask_count, 0, self.geometry.ask_size, shape, dtype)

    def claim(self, slot: int, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        """A view of a claim slot; as `ask`."""
        start = self.geometry.ask_count * self.geometry.ask_size
        return self._view(slot, self.geometry.claim_count, start, self.geometry.claim_size, shape, dtype)

    def claim_ring(self) -> Ring | None:
        """The ring of claims, if there is one."""
        return self._ring(self.geometry.ring_offset, self.geometry.piece_count)

    def word_ring(self) -> Ring | None:
        """The ring of words, if there is one."""
        return self._ring(self.geometry.word_offset, self.geometry.word_count)

    def _ring(self, begin: int, count: int) -> Ring | None:
        if count == 0:
            return None
        end = begin + count * self.geometry.piece_size
        places = np.frombuffer(self._bytes[begin:end], np.uint8)
        counters = np.frombuffer(self._bytes[end : end + SLOT_ALIGNMENT], np.uint32)
        return Ring(
            places.reshape(count, self.geometry.piece_size),
            counters[:1],
            counters[_COUNTER_STRIDE : _COUNTER_STRIDE + 1],
        )

    def ask_slot_of(self, array: NDArray[Any]) -> int | None:
        """The ask slot at whose first byte an array begins, or None where it lies elsewhere."""
        offset = array.__array_interface__["data"][0] - self._base
        slot, rest = divmod(offset, self.geometry.ask_size)
        return slot if rest == 0 and 0 <= slot < self.geometry.ask_count else None

    def _view(
        self, slot: int, count: int, start: int, size: int, shape: tuple[int, ...], dtype: DTypeLike
    ) -> NDArray[Any]:
        kind = np.dtype(dtype)
        needed = math.prod(shape) * kind.itemsize
        if not 0 <= slot < count or needed > size:
            raise WireError("a message names memory outside of its region")
        begin = start + slot * size
        return np.frombuffer(self._bytes[begin : begin + needed], kind).reshape(shape)


class PieceNumbers:
    """Numbers of the pieces of one ring, in order. Either side counts for itself."""

    def __init__(self) -> None:
        self.next = 0

    def take(self, count: int) -> int:
        """The first of so many."""
        first, self.next = self.next, (self.next + count) % PIECE_NUMBERS
        return first


def passage_of(ring: Ring, numbers: PieceNumbers, errand: Errand, batch: int, count: int) -> Passage:
    """The way of a claim [batch, count] through the ring. Raises WireError where a piece has no room there."""
    return _take_way(numbers, Passage(ring, numbers.next, batch, count, errand.span, errand.element is Element.INT24))


def word_passage_of(ring: Ring, numbers: PieceNumbers, batch: int, count: int, span: int) -> Passage:
    """The way of words [batch, count] through the ring, `span` elements of an item at a time; as `passage_of`."""
    return _take_way(numbers, Passage(ring, numbers.next, batch, count, span, False))


def _take_way(numbers: PieceNumbers, passage: Passage) -> Passage:
    if passage.batch * min(passage.span, passage.count) * passage.width > passage.ring.places.shape[1]:
        raise WireError("a piece has no room in the ring")
    numbers.take(passage.pieces)
    return passage


class Slots:
    """Which slots of one kind are free. Thread-safe."""

    def __init__(self, count: int) -> None:
        self._free = list(range(count))[::-1]
        self._changed = threading.Condition()

    def lease(self, timeout_seconds: float) -> int:
        """A slot that is nobody's. Raises DeviceError where none becomes free in time."""
        deadline = time.monotonic() + timeout_seconds
        with self._changed:
            while not self._free:
                if not self._changed.wait(deadline - time.monotonic()):
                    raise DeviceError(f"no slot became free within {timeout_seconds:g} seconds")
            return self._free.pop()

    def lease_if_free(self) -> int | None:
        """A slot, or None where all are in use."""
        with self._changed:
            return self._free.pop() if self._free else None

    def release(self, slot: int) -> None:
        """Gives a slot back."""
        with self._changed:
            self._free.append(slot)
            self._changed.notify()

    def release_with(self, array: NDArray[Any], slot: int) -> None:
        """Gives a slot back as soon as nobody holds the array that `Region` gave, or a view of it, any more."""
        # LOAD-BEARING: a view holds the array at the root of all views, and not the one that it was made from
        root = array.base if isinstance(array.base, np.ndarray) else array
        weakref.finalize(root, self.release, slot).atexit = False


def page_ceiling(size: int) -> int:
    """The size rounded up to whole pages, one at least."""
    return max(1, -(-size // mmap.PAGESIZE)) * mmap.PAGESIZE


def free_bytes() -> int | None:
    """Memory that this machine can still give without swapping, as the kernel estimates; None where it does not say."""
    try:
        lines = _MEMORY_FACTS.read_text(encoding="ascii").splitlines()
        facts = dict(line.split(":", 1) for line in lines if ":" in line)
        return int(facts["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError, IndexError):
        return None


@dataclass(frozen=True, eq=False)
class MadeRegion:
    """A region and how the other side finds it: by a descriptor, by a name in /dev/shm, or not at all."""

    region: Region
    descriptor: int | None = None
    path: Path | None = None

    @property
    def name(self) -> bytes:
        """The name, or nothing."""
        return b"" if self.path is None else self.path.name.encode("ascii")

    def forget(self) -> None:
        """Leaves the memory to those who have mapped it: no descriptor, no name."""
        if self.descriptor is not None:
            os.close(self.descriptor)
        if self.path is not None:
            self.path.unlink(missing_ok=True)


def make_region(bulk: Bulk, geometry: Geometry) -> MadeRegion:
    """A region for one conversation, all zeros. Raises DeviceError where there is not enough memory for it."""
    try:
        if bulk is Bulk.MEMFD:
            return _make_memfd(geometry)
        if bulk is Bulk.SHM:
            return _make_shm(geometry)
        return MadeRegion(_make_own(geometry))
    except OSError as error:
        raise DeviceError(f"no {geometry.size} bytes of memory for the link: {error.strerror}") from error


def _make_memfd(geometry: Geometry) -> MadeRegion:
    descriptor = os.memfd_create("slalom-link", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.ftruncate(descriptor, geometry.size)
        # LOAD-BEARING: unsealed, the peer could shrink the file, and a read of what is gone kills this process
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, _SEALS)
        return MadeRegion(Region(mmap.mmap(descriptor, geometry.size), geometry), descriptor=descriptor)
    except BaseException:
        os.close(descriptor)
        raise


def _make_shm(geometry: Geometry) -> MadeRegion:
    """Under a fresh name, its owner's alone, with all its memory from the start."""
    path = SHM_FOLDER / f"{SHM_PREFIX}{secrets.token_hex(16)}"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        os.posix_fallocate(descriptor, 0, geometry.size)
        return MadeRegion(Region(mmap.mmap(descriptor, geometry.size), geometry), path=path)
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    finally:
        os.close(descriptor)


def _make_own(geometry: Geometry) -> Region:
    """Memory of this process alone, for a conversation in which bytes travel behind their header."""
    return Region(mmap.mmap(-1, geometry.size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS), geometry)


def map_region(geometry: Geometry, bulk: Bulk, name: bytes, descriptor: int | None) -> Region:
    """The device's mapping of what the trusted side created. Raises WireError where it is not what was said."""
    try:
        if bulk is Bulk.INLINE:
            return _make_own(geometry)
        return _map_file(_open_shm(name) if descriptor is None else descriptor, geometry, sealed=bulk is Bulk.MEMFD)
    except (OSError, ValueError) as error:
        raise WireError("the shared memory cannot be mapped") from error


def _map_file(opened: int, geometry: Geometry, *, sealed: bool) -> Region:
    """A mapping of an open file, which is closed. A memory file must be sealed against shrinking, for this side too."""
    try:
        if sealed and not fcntl.fcntl(opened, fcntl.F_GET_SEALS) & fcntl.F_SEAL_SHRINK:
            raise WireError("the shared memory could be taken away")
        if os.fstat(opened).st_size < geometry.size:
            raise WireError("the shared memory is smaller than was said")
        return Region(mmap.mmap(opened, geometry.size), geometry)
    finally:
        os.close(opened)


def _open_shm(name: bytes) -> int:
    text = name.decode("ascii", "replace")
    if not text.startswith(SHM_PREFIX) or "/" in text or not text.isprintable() or len(name) > NAME_SIZE:
        raise WireError("the shared memory has a name that no trusted side gives")
    try:
        return os.open(SHM_FOLDER / text, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError as error:
        raise WireError("the shared memory is not there") from error
