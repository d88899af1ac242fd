"""Words from a key: the keystream of AES-256-GCM, as the trusted side and a dealer expand it alike."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from numpy.typing import NDArray

SEED_SIZE = 32  # bytes: a key of its own
_CHUNK_SIZE = 2**20  # sixteen threads that call for less wait for each other, and for Python's lock
_TAG_SIZE = 16
_ZEROS = memoryview(bytes(_CHUNK_SIZE))

ShareOut = Callable[[int, int, Callable[[int, int], None]], object]  # as `arithmetic.dispatch.Dispatch.run_ranges`


def in_turn(count: int, multiple: int, work: Callable[[int, int], None]) -> None:
    """All of 0..count in the caller's thread."""
    work(0, count)


def expand_seed(seed: bytes | bytearray, target: NDArray[np.int32], share_out: ShareOut = in_turn) -> None:
    """Overwrites a C-contiguous array with the words that a seed of 32 bytes stands for: uniform, and always the same.

    A seed is used for one array. The words are the keystream itself, so there is no bias.
    """
    fill_keystream(AESGCM(seed), 0, target, share_out)


def fill_keystream(cipher: AESGCM, stream: int, target: NDArray[np.generic], share_out: ShareOut = in_turn) -> None:
    """Overwrites a C-contiguous array with what AES-256-GCM makes of zeros, less its tags.

    Chunk c of a stream has the nonce (stream, c), 8 and 4 bytes, and so counter blocks of its own. `share_out` calls
    what it is given for ranges of the chunks, from several threads if it likes: the cipher works without Python's lock.
    """
    flat = target.reshape(-1).view(np.uint8)
    whole, count = flat.data, -(-len(flat) // _CHUNK_SIZE)
    begun: list[int] = []

    def fill(begin: int, end: int) -> None:
        begun.append(begin)
        for chunk in range(begin, min(end, count - 1)):  # the tag lies where the next chunk begins
            place = whole[chunk * _CHUNK_SIZE : (chunk + 1) * _CHUNK_SIZE + _TAG_SIZE]
            if len(place) == _CHUNK_SIZE + _TAG_SIZE:
                cipher.encrypt_into(_nonce(stream, chunk), _ZEROS, None, place)
            else:  # of the last chunk there is less than a tag
                _fill_aside(cipher, _nonce(stream, chunk), flat[chunk * _CHUNK_SIZE : (chunk + 1) * _CHUNK_SIZE])
        if end == count:
            _fill_aside(cipher, _nonce(stream, count - 1), flat[(count - 1) * _CHUNK_SIZE :])

    if count:
        share_out(count, 1, fill)
        for chunk in begun:  # LOAD-BEARING: another thread may have left its last tag there
            _fill_aside(cipher, _nonce(stream, chunk), flat[chunk * _CHUNK_SIZE :][:_TAG_SIZE])


def _fill_aside(cipher: AESGCM, nonce: bytes, place: NDArray[np.uint8]) -> None:
    """The beginning of a chunk, where there is no room for a tag behind it."""
    room = np.empty(len(place) + _TAG_SIZE, np.uint8)
    cipher.encrypt_into(nonce, _ZEROS[: len(place)], None, room.data)
    np.copyto(place, room[: len(place)])  # NumPy copies and fills without Python's lock
    room.fill(0)


def _nonce(stream: int, chunk: int) -> bytes:
    return stream.to_bytes(8, "big") + chunk.to_bytes(4, "big")
