"""Pooling of integer images: the maximum or the sum of each window, exact."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from slalom import _native
from slalom.arithmetic.dispatch import Dispatch, Isa
from slalom.arithmetic.memory import aligned_empty
from slalom.errors import ApiMisuse
from slalom.plan.steps import Pool, Reduction, Window

Pooled = npt.NDArray[np.int16 | np.int32]
Room = Callable[[tuple[int, ...], npt.DTypeLike], npt.NDArray[Any]]


def pool(dispatch: Dispatch, step: Pool, x: npt.NDArray[np.int16], out: Room = aligned_empty) -> Pooled:
    """The windows of a batch of images: int16 [B, OH, OW, C] for MAXIMUM, int32 for SUM (mod 2**32).

    `out` gives memory of a shape and type for them.

    `x` is int16 [B, H, W, C], any values. Raises ApiMisuse for another dtype or a window outside the image.
    """
    if x.dtype != np.int16 or x.ndim != 4:
        raise ApiMisuse(f"a pool takes a batch of int16 images, not {x.dtype} {x.shape}")
    rows, columns = window_words(step.rows, x.shape[1]), window_words(step.columns, x.shape[2])
    if dispatch.isa is Isa.NUMPY:
        return pool_reference(step, x)
    maximum = step.reduction is Reduction.MAXIMUM
    kernel = _native.pool_maximum if maximum else _native.pool_sum
    y = out((x.shape[0], len(rows), len(columns), x.shape[3]), np.int16 if maximum else np.int32)
    kernel(dispatch.isa.code, dispatch.team, np.ascontiguousarray(x), rows, columns, y)
    return y


def window_words(windows: Sequence[Window], extent: int) -> npt.NDArray[np.int64]:
    """int64 [count, 3] of start, stop, step. Raises ApiMisuse for a window that is empty or outside 0..extent."""
    for window in windows:
        if not (0 <= window.start < window.stop <= extent and window.step >= 1):
            raise ApiMisuse(f"{window} is empty or reaches outside 0..{extent}")
    return np.array([(window.start, window.stop, window.step) for window in windows], dtype=np.int64).reshape(-1, 3)


def pool_reference(step: Pool, x: npt.NDArray[np.int16]) -> Pooled:
    """Rows first, then columns: both reductions allow it."""
    values: Pooled = x if step.reduction is Reduction.MAXIMUM else x.astype(np.int32)
    for axis, windows in ((1, step.rows), (2, step.columns)):
        values = np.stack([_reduce(step.reduction, values, axis, window) for window in windows], axis=axis)
    return values


def _reduce(reduction: Reduction, values: Pooled, axis: int, window: Window) -> Pooled:
    taken = values.take(range(window.start, window.stop, window.step), axis=axis)
    maximum = reduction is Reduction.MAXIMUM
    joined: Pooled = taken.max(axis=axis) if maximum else taken.sum(axis=axis, dtype=np.int32)
    return joined
