"""Random changes to bytes, for tests that feed decoders with what is almost right."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

HEAD = 4096  # half of the changes fall here, where most decoders decide


def mutate(content: bytes, random: np.random.Generator, words: Sequence[bytes]) -> bytes:
    """A few random changes: a byte, a bit, a cut, a repetition, one of the words, another size in front."""
    changed = bytearray(content)
    limit = len(content) if random.integers(2) else min(len(content), HEAD)
    for _ in range(random.integers(1, 4)):
        place, kind = int(random.integers(limit)), int(random.integers(6))
        place = min(place, len(changed) - 1)
        if kind == 0:
            changed[place] = int(random.integers(256))
        elif kind == 1:
            changed[place] ^= 1 << int(random.integers(8))
        elif kind == 2:
            del changed[place : place + int(random.integers(1, 20))]
        elif kind == 3:
            changed[place:place] = changed[place : place + int(random.integers(1, 20))]
        elif kind == 4:
            word = words[int(random.integers(len(words)))]
            changed[place : place + len(word)] = word
        else:
            changed[:8] = int(random.integers(2**62)).to_bytes(8, "little") if random.integers(8) == 0 else changed[:8]
        if len(changed) < 9:
            break
    return bytes(changed)
