"""Where a user's arrays enter and leave: float32 in the user's layout, integers and rows inside."""

from __future__ import annotations

import numpy as np

from slalom.arithmetic.dispatch import Dispatch
from slalom.arithmetic.entry import quantise_images as quantise
from slalom.errors import InputError
from slalom.plan.steps import Layout, Shape
from slalom.trusted.model import TrustedModel


def user_shape(shape: Shape, layout: Layout) -> Shape:
    """The shape of one item as the user sees it: images as (channels, height, width)."""
    return (shape[2], shape[0], shape[1]) if layout is Layout.CHANNELS_FIRST else shape


def quantise_images(model: TrustedModel, images: object, dispatch: Dispatch) -> np.ndarray:
    """The input activation, int16 [B, *shape], of float32 images [B, *user shape].

    Numbers beyond the calibrated range are clamped to it. Raises InputError for another type or shape, an empty
    batch, or numbers that are not finite.
    """
    entry = model.graph.input
    expected = user_shape(entry.output.shape, entry.layout)
    if not isinstance(images, np.ndarray):
        raise InputError(f"images must be a NumPy array, not {type(images).__name__}", hint="tensor.numpy() makes one")
    if images.dtype != np.float32:
        raise InputError(f"images must be float32, not {images.dtype}", hint="images.astype(np.float32)")
    if images.ndim != len(expected) + 1 or images.shape[1:] != expected:
        raise InputError(f"images must have shape [batch, {', '.join(map(str, expected))}], not {list(images.shape)}")
    if len(images) == 0:
        raise InputError("the batch is empty")
    first = entry.layout is Layout.CHANNELS_FIRST
    activation, finite = quantise(dispatch, images, first, model.input_requantisation)
    if not finite:
        raise InputError("images hold NaN or infinite numbers")
    return activation


def present_outputs(model: TrustedModel, outputs: list[np.ndarray]) -> list[np.ndarray]:
    """The outputs, float32 [B, *user shape], of rows float32 [B, count]."""
    presented = []
    for output, rows in zip(model.graph.outputs, outputs, strict=True):
        items = rows.reshape(len(rows), *model.shape(output.source))
        if output.layout is Layout.CHANNELS_FIRST:
            items = np.moveaxis(items, -1, 1)
        presented.append(np.ascontiguousarray(items))
    return presented
