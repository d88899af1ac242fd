"""Whether words are uniform over all 2^32, said with a number: chi-square on every byte and on the top 12 bits."""

from __future__ import annotations

import numpy as np
from scipy.stats import chi2

LIMIT = 1e-9  # a test with this false alarm rate, a few hundred times a run, fails once in millions of runs


def chi_square_p(values: np.ndarray, cells: int) -> float:
    """The probability that uniform values in 0..cells-1 are at least as uneven as these."""
    counts = np.bincount(values, minlength=cells)
    expected = values.size / cells
    return float(chi2.sf(float(((counts - expected) ** 2 / expected).sum()), cells - 1))


def uniformity(words: np.ndarray) -> float:
    """The least p-value over the four bytes and the top 12 bits of 32-bit words."""
    unsigned = np.ascontiguousarray(words).view(np.uint32).reshape(-1)
    bytes_of = unsigned.view(np.uint8).reshape(-1, 4)
    values = [chi_square_p(bytes_of[:, place], 256) for place in range(4)]
    return min(*values, chi_square_p(unsigned >> np.uint32(20), 4096))
