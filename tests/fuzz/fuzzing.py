"""A loop around one decoder: what it may raise, what it may take, and how to see one execution again.

Every execution draws from a generator of its own, of the seed and its number, which a failure names:
`attempt(numpy.random.default_rng([seed, number]))` repeats it.
"""

from __future__ import annotations

import resource
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from slalom.errors import SlalomError

Attempt = Callable[[np.random.Generator], str]


@dataclass(frozen=True)
class Budget:
    """What a fuzzer may use: seconds, and bytes that the process may grow by at its peak."""

    seconds: float
    growth: int


def fuzz(attempt: Attempt, budget: Budget, seed: int = 0) -> Counter[str]:
    """How often each outcome came: what an attempt returns, or the text of the SlalomError that it raises.

    Anything else that is raised is a finding, and so is a peak of memory beyond the budget.
    """
    outcomes: Counter[str] = Counter()
    largest = peak() + budget.growth
    end, number = time.monotonic() + budget.seconds, 0
    while time.monotonic() < end:
        try:
            outcomes[attempt(np.random.default_rng([seed, number]))] += 1
        except SlalomError as error:
            assert "\n" not in str(error)
            assert len(str(error)) < 500
            outcomes[f"{type(error).__name__}: {error}"] += 1
        except BaseException as error:
            error.add_note(f"seed {seed}, execution {number}")
            raise
        assert peak() < largest, f"memory: seed {seed}, execution {number}"
        number += 1
    print(f"{number} executions, {len(outcomes)} outcomes, {(peak() - largest + budget.growth) / 2**20:.0f} MiB more")
    return outcomes


def peak() -> int:
    """The most memory this process ever had, bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def random_number(random: np.random.Generator) -> int:
    """A number that fields are wrong with: small, large, or at an edge of its type."""
    edges = (0, 1, 2, 3, 7, 2**8 - 1, 2**16 - 1, 2**16, 2**31 - 1, 2**31, 2**32 - 1, 2**63, 2**64 - 1)
    if random.integers(2):
        return edges[int(random.integers(len(edges)))]
    return int(random.integers(2**63)) >> int(random.integers(63))


def number_words(random: np.random.Generator) -> list[bytes]:
    """Numbers of every width as bytes, for `mutate` to write."""
    return [(random_number(random) % 256**size).to_bytes(size, "little") for size in (1, 2, 4, 8)]
