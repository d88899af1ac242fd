"""The linear maps of a plan, in NumPy: the reference that every kernel and device must equal bit for bit.

All integers are taken mod 2**32 and stored as int32 in two's complement: results wrap around and never saturate.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from slalom.errors import ApiMisuse
from slalom.plan.shapes import Geometry, map_geometry
from slalom.plan.steps import LinearMap

Words = npt.NDArray[np.int16 | np.int32]

_BLOCK_CHANNELS = 2**14


def apply_map(linear_map: LinearMap, weight: npt.NDArray[np.int8], x: Words) -> npt.NDArray[np.int32]:
    """One map over a batch: int32 words [B, *output shape], exact mod 2**32.

    `weight` is int8 as the map's docstring says; `x` is int16 or int32 [B, *item shape], any values.
    Raises ModelError where the shapes do not fit, ApiMisuse for other dtypes.
    """
    check_words(x)
    geometry = map_geometry(linear_map, weight.shape, x.shape[1:])
    kernel = weight.reshape(geometry.weight_shape)
    image = pad_image(geometry, x.reshape(-1, *geometry.input_image))
    y = np.zeros((len(image), *geometry.output_image), dtype=np.int32)
    for a, b, taken in tap_slices(geometry):
        y += _multiply_tap(geometry, image[:, *taken], kernel[a, b])
    return y.reshape(len(x), *geometry.output_shape)


def apply_maps(
    maps: Sequence[LinearMap], weights: Mapping[str, npt.NDArray[np.int8]], x: Words
) -> npt.NDArray[np.int32]:
    """A chain of maps in order, exact mod 2**32; arguments as in `apply_map`."""
    y: Words = x
    for linear_map in maps:
        y = apply_map(linear_map, weights[linear_map.weight], y)
    return y.astype(np.int32, copy=False)


def check_words(x: Words) -> None:
    """Raises ApiMisuse unless `x` is a batch of int16 or int32."""
    if x.dtype not in (np.int16, np.int32) or x.ndim < 2:
        raise ApiMisuse(f"a linear map takes a batch of int16 or int32, not {x.dtype} {x.shape}")


def pad_image(geometry: Geometry, image: Words) -> Words:
    """[B, H, W, C] with the map's explicit zeros around it."""
    top, bottom, left, right = geometry.padding
    if not any(geometry.padding):
        return image
    return np.pad(image, ((0, 0), (top, bottom), (left, right), (0, 0)))


def tap_slices(geometry: Geometry) -> Iterator[tuple[int, int, tuple[slice, slice]]]:
    """For each kernel position (a, b): the slices of the padded image's rows and columns that it reads."""
    for a in range(geometry.kernel[0]):
        rows = _strided(a * geometry.dilation[0], geometry.stride[0], geometry.output_image[0])
        for b in range(geometry.kernel[1]):
            yield a, b, (rows, _strided(b * geometry.dilation[1], geometry.stride[1], geometry.output_image[1]))


def _strided(start: int, step: int, count: int) -> slice:
    return slice(start, start + (count - 1) * step + 1, step)


def _multiply_tap(geometry: Geometry, taken: Words, kernel: npt.NDArray[np.int8]) -> npt.NDArray[np.int32]:
    """taken [B, OH, OW, C] through one tap's weights [C / groups, Cout], as int32 words."""
    groups, inputs, outputs = geometry.groups, geometry.group_inputs, geometry.group_outputs
    shape = (*taken.shape[:3], groups * outputs)
    if inputs == 1:
        # int32 * int32 wraps mod 2**32 in NumPy, which is the arithmetic wanted
        product = taken[..., None].astype(np.int32) * kernel.reshape(groups, outputs).astype(np.int32)
        return product.reshape(shape)
    left = taken.reshape(-1, groups, inputs).transpose(1, 0, 2)
    right = kernel.reshape(inputs, groups, outputs).transpose(1, 0, 2)
    total = np.zeros((groups, left.shape[1], outputs), dtype=np.int64)
    for start in range(0, inputs, _BLOCK_CHANNELS):
        block = slice(start, start + _BLOCK_CHANNELS)
        # |x| <= 2^31, |w| <= 2^7, 2^14 terms -> every partial sum <= 2^52: float64 is exact, in any order
        total += (left[..., block].astype(np.float64) @ right[:, block].astype(np.float64)).astype(np.int64)
    return total.astype(np.int32).transpose(1, 0, 2).reshape(shape)
