"""Numbers to integers: weights per output channel, and the bits that the range proof leaves for an activation."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from slalom.errors import ModelError
from slalom.importer.graph import Floats, Weights
from slalom.plan.steps import ACCUMULATOR_LIMIT

_BLOCK_ROWS = 1024
_LEAST_SCALE = 2.0**-100
_SCALE_RANGE = (2.0**-60, 2.0**60)


def quantise_weight(weight: Weights, limit: int) -> tuple[NDArray[np.int8], Floats]:
    """Symmetric integers within -limit..limit (at most 127) and one scale for every output channel (the last axis).

    weight ~ integers * scales; scales are numbers that float32 holds. A channel of zeros has scale 1. Ties to even.
    Raises ModelError for weights beyond float32.
    """
    columns = weight.reshape(-1, weight.shape[-1])
    largest = np.maximum(columns.max(axis=0), -columns.min(axis=0))
    if not np.isfinite(largest).all():
        raise ModelError("a weight is beyond float32 once batch norm is folded into it")
    scales = largest / np.float32(limit)
    scales[scales < _LEAST_SCALE] = 1.0
    integers = np.empty(columns.shape, np.int8)
    for start in range(0, len(columns), _BLOCK_ROWS):
        block = np.rint(columns[start : start + _BLOCK_ROWS] / scales)
        integers[start : start + _BLOCK_ROWS] = np.clip(block, -limit, limit)
    return integers.reshape(weight.shape), scales.astype(np.float64)


def bits_within(bound: int) -> int:
    """The most bits b for which bound * (2^(b-1) - 1) <= 2^31 - 1, where sums reach `bound` for inputs of one."""
    if bound == 0:
        return 32
    largest = ACCUMULATOR_LIMIT // bound
    return (largest + 1).bit_length()  # 2^(b-1) <= largest + 1


def activation_scale(reach: float, bits: int) -> float:
    """The scale at which `reach` is the largest integer of so many bits: a float32, never below what holds it.

    A value that is zero throughout has scale 1.
    """
    if reach == 0.0:
        return 1.0
    scale = np.float32(reach / (2 ** (bits - 1) - 1))
    return float(min(max(float(scale), _SCALE_RANGE[0]), _SCALE_RANGE[1]))
