"""Sealing masks outside, opening them again, and expanding their words: GB/s on so many threads, and the cipher alone.

    python benchmarks/spill.py [--folder /dev/shm] [--threads 1] [--megabytes 256] [--rounds 7]

The array that is sealed is there already; what is opened and expanded goes where masks were before, as in a session.
Medians.
"""

from __future__ import annotations

import argparse
import secrets
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from slalom.arithmetic.dispatch import make_dispatch
from slalom.arithmetic.keystream import ShareOut
from slalom.isolation.secret import SecretMemory
from slalom.trusted.randomness import Randomness
from slalom.trusted.recycling import Recycler
from slalom.trusted.vault import Vault

CHUNK = 2**18


def cipher_alone(size: int) -> None:
    """As many bytes by the cipher, over and over in the same chunk."""
    cipher, part, room = AESGCM(secrets.token_bytes(32)), memoryview(bytes(CHUNK)), bytearray(CHUNK + 16)
    for number in range(size // CHUNK):
        cipher.encrypt_into(number.to_bytes(12, "big"), part, b"", room)


def expand(randomness: Randomness, memory: Recycler, count: int, share_out: ShareOut) -> None:
    """Words of a fresh stream, where words were before."""
    randomness.expand_words(randomness.draw_stream(), count, share_out, memory.empty((count,)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=Path("/dev/shm"))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--megabytes", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=7)
    words = parser.parse_args()
    dispatch = make_dispatch(threads=words.threads)
    array = np.random.default_rng(0).integers(-(2**31), 2**31, (1, words.megabytes * 2**18), dtype=np.int32)
    randomness, memory = Randomness(SecretMemory), Recycler()
    vault = Vault(words.folder / f"slalom-spill-{secrets.token_hex(4)}", bytes(32), SecretMemory)
    taken: dict[str, list[float]] = {"cipher alone, one thread": [], "seal": [], "open": [], "words": []}

    def timed(name: str, work: Callable[[], object]) -> object:
        begin = time.perf_counter()
        result = work()
        taken[name].append(time.perf_counter() - begin)
        return result

    try:
        for _ in range(words.rounds + 1):
            timed("cipher alone, one thread", lambda: cipher_alone(array.nbytes))
            record = timed("seal", lambda: vault.seal(array, b"benchmark", dispatch.run_ranges))
            opened = timed("open", lambda: vault.open(record, dispatch.run_ranges, memory))  # type: ignore[arg-type]  # noqa: B023
            if not np.array_equal(opened, array):  # type: ignore[arg-type]
                raise SystemExit("what was opened is not what was sealed")
            del opened
            timed("words", lambda: expand(randomness, memory, array.size, dispatch.run_ranges))
    finally:
        vault.destroy()
        dispatch.close()
    for name, seconds in taken.items():
        print(f"{name:26s} {array.nbytes / statistics.median(seconds[1:]) / 1e9:6.2f} GB/s on {words.threads} threads")


if __name__ == "__main__":
    main()
