"""Secrets in memory or a file that nobody has to trust: sealed with AES-256-GCM, each opened once.

What can be opened, and where it lies, is known here alone. A record is sealed under a number that was never used
before, with the plan, the step and the mask that it belongs to: what was changed, cut off, swapped, or brought back
from an earlier day does not open. The key is of this process and dies with it, and so does everything that was sealed.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from slalom.arithmetic.fused import Words
from slalom.arithmetic.keystream import ShareOut, in_turn
from slalom.arithmetic.memory import aligned_empty
from slalom.errors import ApiMisuse, MaskError, PrivacyError
from slalom.trusted.randomness import KeyMemory, draw_key, fresh_name
from slalom.trusted.recycling import Recycler

FILE_PREFIX = "slalom-masks-"

_TAG_SIZE = 16
_CHUNK_SIZE = 2**18  # bytes that are sealed at once: they stay in the second cache
_SEALED_SIZE = _CHUNK_SIZE + _TAG_SIZE


@dataclass(frozen=True)
class Record:
    """Where a sealed array lies, and what it must be. `number`: of its first chunk. `label`: what it belongs to."""

    offset: int
    number: int
    shape: tuple[int, ...]
    label: bytes

    @property
    def size(self) -> int:
        """Of the array, in bytes."""
        return 4 * int(np.prod(self.shape, dtype=np.int64))

    @property
    def chunks(self) -> int:
        """How many pieces it is sealed in."""
        return max(1, -(-self.size // _CHUNK_SIZE))

    @property
    def sealed_size(self) -> int:
        """Bytes in the file."""
        return self.size + self.chunks * _TAG_SIZE


class Vault:
    """Arrays of int32 in a file of its own at `path`, which must not be there yet and goes when the vault is destroyed.

    Thread-safe. `key_memory` gives memory for the key. Raises ApiMisuse where the file cannot be made.
    """

    def __init__(self, path: Path, digest: bytes, key_memory: Callable[[int], KeyMemory]) -> None:
        self._path = path
        self._digest = digest
        self._process = os.getpid()
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            self._file = os.open(path, flags, 0o600)
        except FileExistsError as error:
            raise ApiMisuse(f"{path} is there already", hint="masks are spilled to a file of their own") from error
        except OSError as error:
            raise ApiMisuse(f"cannot make {path}: {error.strerror}") from error
        _hold(self._file)
        self._key = draw_key(key_memory)
        self._lock = threading.Condition()
        self._busy = 0  # calls that read or write the file
        self._next_number = 0
        self._end = 0
        self._free: dict[int, list[int]] = {}  # offsets of what was opened, by size
        self._sealed: set[int] = set()  # numbers of the records that can still be opened
        self._open = True

    @property
    def sealed_bytes(self) -> int:
        """How large the file has become."""
        return self._end

    def seal(self, words: Words, label: bytes, share_out: ShareOut = in_turn) -> Record:
        """Seals an array, which is left as it is. `label` says what it belongs to.

        Raises MaskError where the file cannot take it.
        """
        array = np.ascontiguousarray(words, np.int32)
        with self._lock:
            cipher = self._cipher()
            record = Record(0, self._next_number, array.shape, label)
            if record.number + record.chunks >= 2**96:
                raise PrivacyError("the numbers of a vault are used up")
            self._busy += 1
            self._next_number += record.chunks  # LOAD-BEARING: no number seals twice, whatever fails below
            free = self._free.get(record.sealed_size)
            offset = free.pop() if free else self._end
            self._end = max(self._end, offset + record.sealed_size)
        record = Record(offset, record.number, array.shape, label)
        whole = array.reshape(-1).view(np.uint8).data

        def work(begin: int, end: int) -> None:
            room = bytearray(_SEALED_SIZE)
            for chunk in range(begin, end):
                part = whole[chunk * _CHUNK_SIZE : (chunk + 1) * _CHUNK_SIZE]
                view = memoryview(room)[: len(part) + _TAG_SIZE]
                cipher.encrypt_into(_nonce(record, chunk), part, self._about(record, chunk), view)
                self._write(view, record.offset + chunk * _SEALED_SIZE)

        try:
            share_out(record.chunks, 1, work)
            with self._lock:
                self._sealed.add(record.number)
        finally:
            self._leave()
        return record

    def open(self, record: Record, share_out: ShareOut = in_turn, memory: Recycler | None = None) -> Words:
        """The array, once, in that memory where there is any: a second time raises PrivacyError.

        Raises MaskError where it is not what was sealed; then too it is gone.
        """
        words = aligned_empty(record.shape, np.int32) if memory is None else memory.empty(record.shape)
        with self._lock:
            cipher = self._cipher()
            if record.number not in self._sealed:
                raise PrivacyError("a mask may be used once")
            self._sealed.remove(record.number)  # LOAD-BEARING: before it is read, so that a failure gives no second try
            self._busy += 1
        whole = words.reshape(-1).view(np.uint8).data

        def work(begin: int, end: int) -> None:
            room = bytearray(_SEALED_SIZE)
            for chunk in range(begin, end):
                part = whole[chunk * _CHUNK_SIZE : (chunk + 1) * _CHUNK_SIZE]
                view = memoryview(room)[: len(part) + _TAG_SIZE]
                self._read(view, record.offset + chunk * _SEALED_SIZE)
                cipher.decrypt_into(_nonce(record, chunk), view, self._about(record, chunk), part)

        try:
            share_out(record.chunks, 1, work)
        except BaseException as error:
            words.fill(0)
            if isinstance(error, InvalidTag):
                raise MaskError("a spilled mask is not what was sealed: it is gone") from None
            raise
        finally:
            self._leave()
        with self._lock:
            self._free.setdefault(record.sealed_size, []).append(record.offset)
        return words

    def forget(self, record: Record) -> None:
        """Gives up a record that nobody will open."""
        with self._lock:
            if record.number in self._sealed:
                self._sealed.remove(record.number)
                self._free.setdefault(record.sealed_size, []).append(record.offset)

    def destroy(self) -> None:
        """Overwrites the key and removes the file, once nobody reads or writes it; may be called twice."""
        with self._lock:
            if not self._open:
                return
            self._open = False
            self._sealed.clear()
            # LOAD-BEARING: a number of a closed file may be another file's the next moment
            self._lock.wait_for(lambda: self._busy == 0)
            os.close(self._file)
            if os.getpid() == self._process:  # a forked child has no file to remove
                self._path.unlink(missing_ok=True)
            self._key.wipe()

    def _leave(self) -> None:
        with self._lock:
            self._busy -= 1
            self._lock.notify_all()

    def _cipher(self) -> AESGCM:
        if os.getpid() != self._process:
            raise PrivacyError("a forked process may not use the session's secrets: it would repeat its parent's")
        if not self._open:
            raise PrivacyError("the session's secrets are destroyed")
        return AESGCM(self._key.buffer)

    def _about(self, record: Record, chunk: int) -> bytes:
        """What a chunk belongs to: the plan, how much there is of the array, which part this is, and the label."""
        return self._digest + record.size.to_bytes(8, "big") + chunk.to_bytes(4, "big") + record.label

    def _write(self, view: memoryview, offset: int) -> None:
        while view:
            try:
                written = os.pwrite(self._file, view, offset)
            except OSError as error:
                raise MaskError(f"masks cannot be spilled to {self._path}: {error.strerror}") from error
            view, offset = view[written:], offset + written

    def _read(self, view: memoryview, offset: int) -> None:
        while view:
            try:
                read = os.preadv(self._file, [view], offset)
            except OSError as error:
                raise MaskError(f"spilled masks cannot be read from {self._path}: {error.strerror}") from error
            if read == 0:
                raise MaskError("a spilled mask was cut off: it is gone")
            view, offset = view[read:], offset + read


def _nonce(record: Record, chunk: int) -> bytes:
    return (record.number + chunk).to_bytes(12, "big")


def make_vault(folder: Path, digest: bytes, key_memory: Callable[[int], KeyMemory]) -> Vault:
    """A vault in a file of its own, under a fresh name. Raises ApiMisuse where none can be made there.

    Removes what vaults of processes that were killed left behind: nobody can open it.
    """
    for path in folder.glob(FILE_PREFIX + "*"):
        with contextlib.suppress(OSError):
            _remove_abandoned(path)
    return Vault(folder / fresh_name(FILE_PREFIX), digest, key_memory)


def _hold(file: int) -> bool:
    """Whether the file is this process's now, until it closes it or ends; False where it is another's."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _remove_abandoned(path: Path) -> None:
    """Removes a vault's file unless a process holds it. One that is not held yet loses its name alone."""
    file = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        if _hold(file):
            path.unlink(missing_ok=True)
    finally:
        os.close(file)
