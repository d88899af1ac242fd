"""The self-test of a device: every path of its linear maps on extreme values, against the NumPy reference."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray

from slalom.arithmetic.linear import Words, apply_map
from slalom.device.engine import extreme_cases
from slalom.device.resident import make_resident
from slalom.plan.steps import Activation, LinearMap


def is_exact(device: torch.device) -> bool:
    """Whether the kernels give the reference's bits on `device` with 1, 2 and 4 digits."""
    for linear_map, weight, words, digits in _cases():
        source = Activation(words.shape[1:], 1.0, 15)
        (resident,) = make_resident((linear_map,), {linear_map.weight: weight}, source, device)
        claim = resident.apply(torch.from_numpy(words).to(device), digits).cpu().numpy()
        expected = apply_map(linear_map, weight, words)
        if not np.array_equal(claim.reshape(expected.shape), expected):
            return False
    return True


def _cases() -> Iterator[tuple[LinearMap, NDArray[np.int8], Words, int]]:
    """The extreme cases, each with a number of digits that holds its words."""
    for linear_map, weight, words in extreme_cases():
        if words.dtype == np.int32:
            yield linear_map, weight, words, 4
        else:
            yield linear_map, weight, np.clip(words, -16383, 16383), 2
            yield linear_map, weight, np.clip(words, -128, 127), 1
