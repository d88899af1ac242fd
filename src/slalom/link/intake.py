"""How the trusted side takes words from the device: exactly the array its own plan expects, or not at all."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from slalom.arithmetic.fused import PACKED_SIZE
from slalom.errors import IntegrityError
from slalom.plan.steps import Shape


def take_packed(words: object, batch: int, count: int, step: str) -> NDArray[np.uint8]:
    """The very array that was given, once it is known to be uint8 [B, count, 3]: claims packed to three bytes.

    As `take_words`. Only for steps whose range proof leaves a claim three bytes, and never for masked words.
    """
    if type(words) is not np.ndarray or words.dtype != np.uint8 or words.shape != (batch, count, PACKED_SIZE):
        raise IntegrityError("the device's claim is not packed as it must be", step=step)
    if not words.flags.c_contiguous:
        raise IntegrityError("the device's claim is not contiguous and aligned", step=step)
    return words


def take_words(words: object, shape: Shape, step: str) -> NDArray[np.int32]:
    """The very array that was given, once it is known to be int32, C-contiguous and of exactly `shape`.

    `shape` is the trusted plan's, batch first. Nothing is copied or converted, and no attribute is read before the
    type is known to be NumPy's own. Raises IntegrityError naming `step` for anything else.
    """
    # LOAD-BEARING: a subclass could override what an attribute says between two readings of it
    if type(words) is not np.ndarray:
        raise IntegrityError("the device's claim is not an array", step=step)
    if words.dtype != np.int32:
        raise IntegrityError(f"the device's claim holds {_dtype_name(words)}, not int32", step=step)
    if words.shape != shape:
        raise IntegrityError(f"the device's claim has shape {list(words.shape)}, not {list(shape)}", step=step)
    if not (words.flags.c_contiguous and words.flags.aligned):
        raise IntegrityError("the device's claim is not contiguous and aligned", step=step)
    return words


def _dtype_name(words: NDArray[np.generic]) -> str:
    """A short name: a structured dtype may carry names of the device's choice."""
    return words.dtype.str if words.dtype.names is None else "records"
