"""The steps that move integers without changing them, and the softmax, in NumPy: the same on either side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slalom.arithmetic.functions import softmax
from slalom.arithmetic.pointwise import prepare_requantisation, requantise
from slalom.errors import ApiMisuse
from slalom.plan.steps import (
    Activation,
    Concatenate,
    Pad,
    Permute,
    Reshape,
    Slice,
    Softmax,
    ValueType,
)

Move = Concatenate | Reshape | Permute | Slice | Pad | Softmax


def apply_move(step: Move, sources: Sequence[NDArray[np.int16]], types: Mapping[str, ValueType]) -> NDArray[Any]:
    """The step's value, C-contiguous [B, *output shape]: int16, or float32 from a softmax with a `Real` output.

    `sources` are int16 [B, *shape], one per source of the step in order; `types` gives a softmax its source's scale.
    The result may share memory with a source. Raises ApiMisuse for a step that is none of these.
    """
    if isinstance(step, Softmax):
        return _softmax(step, sources[0], types)
    return np.ascontiguousarray(_move(step, sources))


def _move(step: Move, sources: Sequence[NDArray[np.int16]]) -> NDArray[np.int16]:
    first = sources[0]
    if isinstance(step, Concatenate):
        return np.concatenate(sources, axis=step.axis + 1)
    if isinstance(step, Reshape):
        return first.reshape(len(first), *step.output.shape)
    if isinstance(step, Permute):
        return first.transpose(0, *(axis + 1 for axis in step.axes))
    if isinstance(step, Slice):
        return first[:, *(slice(window.start, window.stop, window.step) for window in step.windows)]
    if isinstance(step, Pad):
        return np.pad(first, ((0, 0), *zip(step.before, step.after, strict=True)))
    raise ApiMisuse(f"step {step.name!r} is a {type(step).__name__.lower()}, not a move")


def _softmax(step: Softmax, source: NDArray[np.int16], types: Mapping[str, ValueType]) -> NDArray[Any]:
    kind = types[step.source]
    if not isinstance(kind, Activation):
        raise ApiMisuse(f"step {step.name!r}: a softmax reads an activation")
    # |q| <= 16383 is exact in float32, so this is one rounding
    values = softmax(source.astype(np.float32) * np.float32(kind.scale), step.logarithm)
    if isinstance(step.output, Activation):
        return requantise(values, prepare_requantisation(step.output))
    return values
