"""The one source of secrets: the keystream of AES-256-GCM under a key from the operating system, one key a session.

A counter never comes back: every draw takes the next stream, and a process that was forked from the one that made the
key may not draw at all (it would repeat its parent's streams).
"""

from __future__ import annotations

import os
import secrets
import threading
from collections.abc import Callable
from typing import Protocol

import numpy as np
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from slalom.arithmetic import field
from slalom.arithmetic.field import Elements
from slalom.arithmetic.fused import Words
from slalom.arithmetic.keystream import SEED_SIZE, ShareOut, expand_seed, fill_keystream, in_turn
from slalom.arithmetic.memory import aligned_empty
from slalom.errors import PrivacyError

_KEY_SIZE = 32
_STREAM_LIMIT = 2**64


class KeyMemory(Protocol):
    """Memory for a key. `buffer` is writable until `wipe`, which overwrites it; where it lies is its own affair."""

    @property
    def buffer(self) -> memoryview:
        """The memory, until it is wiped."""

    def wipe(self) -> None:
        """Overwrites the memory and lets it go; may be called twice."""


def draw_key(key_memory: Callable[[int], KeyMemory]) -> KeyMemory:
    """A fresh key of 32 bytes from the operating system, in memory of that kind."""
    key = key_memory(_KEY_SIZE)
    # the bytes pass through the heap once, where the operating system's randomness is given
    key.buffer[:] = secrets.token_bytes(_KEY_SIZE)
    return key


def fresh_name(prefix: str) -> str:
    """A name that no other file has."""
    return prefix + secrets.token_hex(8)


class PlainMemory:
    """Memory like any other."""

    def __init__(self, size: int) -> None:
        self._bytes = bytearray(size)

    @property
    def buffer(self) -> memoryview:
        """The memory, until it is wiped."""
        return memoryview(self._bytes)

    def wipe(self) -> None:
        """Overwrites the memory and lets it go."""
        self._bytes[:] = bytes(len(self._bytes))
        self._bytes = bytearray()


class Randomness:
    """Uniform words and field elements. Thread-safe; refuses to draw in a forked process (PrivacyError).

    `key_memory` gives memory of so many bytes for the key.
    """

    def __init__(self, key_memory: Callable[[int], KeyMemory] = PlainMemory) -> None:
        self._key = draw_key(key_memory)
        self._destroyed = False
        self._next_stream = 0
        self._process = os.getpid()
        self._lock = threading.Lock()

    def draw_stream(self) -> int:
        """A stream index that was never given before and never will be. Raises PrivacyError when they end."""
        with self._lock:
            self.require_usable()
            if self._next_stream >= _STREAM_LIMIT:
                raise PrivacyError("the session's random streams are used up")
            stream = self._next_stream
            self._next_stream += 1
            return stream

    def require_process(self) -> None:
        """Raises PrivacyError in a process that was forked from the one that made the key."""
        if os.getpid() != self._process:
            raise PrivacyError("a forked process may not use the session's secrets: it would repeat its parent's")

    def seed_of(self, stream: int) -> bytearray:
        """The 32 bytes that stand for a stream's words: all that a dealer is told. For the caller to overwrite."""
        seed = bytearray(SEED_SIZE)
        self._keystream(stream, np.frombuffer(seed, np.uint8))
        return seed

    def expand_words(self, stream: int, count: int, share_out: ShareOut = in_turn, out: Words | None = None) -> Words:
        """`count` uniform 32-bit words as int32, the same each time for one stream: a mask kept as its seed.

        count < 2^48, so that the chunks of a stream have numbers of their own; `share_out` as `fill_keystream` has it.
        `out`: where they go, int32 [count].
        """
        words = aligned_empty((count,), np.int32) if out is None else out
        seed = self.seed_of(stream)
        expand_seed(seed, words, share_out)
        seed[:] = bytes(SEED_SIZE)
        return words

    def draw_field(self, count: int) -> Elements:
        """`count` fresh elements uniform in F_p: 51 random bits, drawn again where they reach p (129 in 2^51)."""
        elements = self._draw_51_bits(count)
        while True:
            rejected = elements >= np.uint64(field.P)
            again = int(np.count_nonzero(rejected))
            if not again:
                return elements
            elements[rejected] = self._draw_51_bits(again)

    def destroy(self) -> None:
        """Overwrites the key; every later draw is refused."""
        with self._lock:
            self._destroyed = True
            self._key.wipe()

    def _draw_51_bits(self, count: int) -> Elements:
        raw = aligned_empty((count,), np.uint64)
        self._keystream(self.draw_stream(), raw)
        raw >>= np.uint64(13)
        return raw

    def require_usable(self) -> None:
        """Raises PrivacyError in a forked process, and once the secrets are destroyed."""
        self.require_process()
        if self._destroyed:
            raise PrivacyError("the session's secrets are destroyed")

    def _keystream(self, stream: int, target: np.ndarray) -> None:
        """Overwrites `target` with the stream's keystream under the session's key."""
        # LOAD-BEARING: locked, or `destroy` in another thread could leave a key of zeros to be used here
        with self._lock:
            self.require_usable()  # LOAD-BEARING: masks made before a fork are expanded here, by one process alone
            cipher = AESGCM(self._key.buffer)
        fill_keystream(cipher, stream, target)
