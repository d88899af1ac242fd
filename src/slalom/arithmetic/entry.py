"""A user's numbers to the input activation: the first rounding of all, which both twins do alike."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from slalom import _native
from slalom.arithmetic.dispatch import Dispatch, Isa
from slalom.arithmetic.pointwise import Requantisation, requantise


def quantise_images(
    dispatch: Dispatch, images: NDArray[np.float32], channels_first: bool, output: Requantisation
) -> tuple[NDArray[np.int16], bool]:
    """The activation, int16 [B, ..., C], of float32 images [B, C, ...] or [B, ..., C]; and whether all are finite.

    times 1/scale, clamped, rounded half to even, as `pointwise.requantise`. What is not finite has no meaning.
    """
    rows = np.moveaxis(images, 1, -1) if channels_first else images
    if dispatch.isa is Isa.NUMPY:
        with np.errstate(over="ignore", invalid="ignore"):  # beyond float32 after scaling is clamped like any other
            return requantise(np.ascontiguousarray(rows), output), bool(np.isfinite(images).all())
    activation = np.empty(rows.shape, np.int16)
    shape = (len(images), rows.shape[-1], math.prod(rows.shape[1:-1]))
    finite = _native.quantise_images(
        dispatch.team, shape, channels_first, float(output.inverse), float(output.limit),
        np.ascontiguousarray(images), activation,
    )  # fmt: skip
    return activation, finite
