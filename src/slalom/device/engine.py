"""The plan's linear maps on torch, exact mod 2**32: every result equals `arithmetic.linear` bit for bit.

Images are (height, width, channels). A convolution gathers its patches into rows and multiplies once; a depthwise
one adds shifted images times one weight a channel, in int32, which wraps.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from slalom.arithmetic.linear import Words, apply_map, check_words, tap_slices
from slalom.device.products import ByteProduct, FloatProduct, Product
from slalom.errors import ApiMisuse, DeviceError
from slalom.plan.shapes import Geometry, chain_geometries
from slalom.plan.steps import Convolution, Dense, LinearMap, Shape

_PATCH_BYTES = 2**22  # of patches gathered at a time: they stay near the processor
_DEPTHWISE_ELEMENTS = 2**18  # of output summed at a time, for the same reason


@dataclass(frozen=True, eq=False)
class PreparedMap:
    """One map, its weights as the engine reads them: one packed matrix a group, or int32 [taps, groups, outputs]."""

    geometry: Geometry
    matrices: tuple[Tensor, ...]
    depthwise: Tensor | None


@dataclass(frozen=True, eq=False)
class PreparedMaps:
    """A chain that `TorchEngine.apply` runs on items of `input_shape`."""

    maps: tuple[PreparedMap, ...]
    input_shape: Shape
    output_shape: Shape


class TorchEngine:
    """Runs chains of linear maps by the first of `products` that passes an exactness test here, at construction.

    Holds no data of its own and may be shared. Raises DeviceError where no product is exact.
    """

    device = torch.device("cpu")

    def __init__(self, products: Sequence[Product] = (ByteProduct(), FloatProduct())) -> None:
        for product in products:
            self._product = product
            if self._is_exact():
                return
        names = ", ".join(product.name for product in products)
        raise DeviceError(f"no matrix product is exact on this processor: tried {names}")

    @property
    def name(self) -> str:
        """Which product runs: `bytes` or `float64`."""
        return self._product.name

    def prepare(
        self, maps: Sequence[LinearMap], weights: Mapping[str, NDArray[np.int8]], input_shape: Shape
    ) -> PreparedMaps:
        """Packs the weights of a chain. Raises ModelError where the shapes do not fit."""
        geometries = chain_geometries(maps, weights, input_shape)
        prepared = tuple(
            self._prepare_map(geometry, weights[linear_map.weight])
            for linear_map, geometry in zip(maps, geometries, strict=True)
        )
        return PreparedMaps(prepared, input_shape, geometries[-1].output_shape)

    def apply(self, prepared: PreparedMaps, words: Words) -> NDArray[np.int32]:
        """The chain on a batch: int16 or int32 [B, *input shape], any values, gives int32 [B, *output shape].

        Raises ApiMisuse for other shapes and dtypes.
        """
        check_words(words)
        if words.shape[1:] != prepared.input_shape:
            raise ApiMisuse(f"a chain for items of {prepared.input_shape} was given {words.shape[1:]}")
        # torch only takes arrays that may be written to, though nothing here writes to this one
        image = torch.from_numpy(np.require(words, requirements=("C", "W", "A"))).to(self.device)
        with torch.inference_mode():
            for prepared_map in prepared.maps:
                image = self._apply_map(prepared_map, image.view(-1, *prepared_map.geometry.input_image))
        result: NDArray[np.int32] = image.view(len(words), *prepared.output_shape).cpu().numpy()
        return result

    def _prepare_map(self, geometry: Geometry, weight: NDArray[np.int8]) -> PreparedMap:
        kernel = torch.from_numpy(weight.reshape(geometry.taps, geometry.group_inputs, geometry.groups, -1).copy())
        if geometry.groups > 1 and geometry.group_inputs == 1:
            return PreparedMap(geometry, (), kernel[:, 0].to(torch.int32))
        matrices = (kernel[:, :, group].reshape(-1, geometry.group_outputs) for group in range(geometry.groups))
        return PreparedMap(geometry, tuple(self._product.pack(matrix) for matrix in matrices), None)

    def _apply_map(self, prepared: PreparedMap, image: Tensor) -> Tensor:
        geometry = prepared.geometry
        if prepared.depthwise is not None:
            return _apply_depthwise(geometry, prepared.depthwise, image)
        planes = self._spread(geometry, image)
        output = torch.empty((len(image), *geometry.output_image), dtype=torch.int32)
        for items, rows in _chunks(geometry, planes):
            part = output[items, rows]
            for group, matrix in enumerate(prepared.matrices):
                patches = _gather(geometry, planes[:, items], rows, group)
                channels = slice(group * geometry.group_outputs, (group + 1) * geometry.group_outputs)
                self._product.multiply(patches, matrix, part[..., channels])
        return output

    def _spread(self, geometry: Geometry, image: Tensor) -> Tensor:
        """The padded image as planes of numbers: [planes, B, H, W, C]."""
        count = self._product.plane_count(image)
        top, bottom, left, right = geometry.padding
        batch, height, width, channels = image.shape
        shape = (count, batch, top + height + bottom, left + width + right, channels)
        planes = (torch.zeros if any(geometry.padding) else torch.empty)(shape, dtype=self._product.dtype)
        inside = planes[:, :, top : top + height, left : left + width]
        self._product.spread(image, list(inside))
        return planes

    def _is_exact(self) -> bool:
        """Whether this product gives the reference's bits on extreme values, over every kind of map."""
        for linear_map, weight, words in extreme_cases():
            weights = {linear_map.weight: weight}
            prepared = self.prepare([linear_map], weights, words.shape[1:])
            if not np.array_equal(self.apply(prepared, words), apply_map(linear_map, weight, words)):
                return False
        return True


def _apply_depthwise(geometry: Geometry, weight: Tensor, image: Tensor) -> Tensor:
    top, bottom, left, right = geometry.padding
    shape = (len(image), *geometry.output_image[:2], geometry.groups, geometry.group_outputs)
    output = torch.zeros(shape, dtype=torch.int32)
    items = max(1, _DEPTHWISE_ELEMENTS // math.prod(geometry.output_image))
    for start in range(0, len(image), items):
        part, total = image[start : start + items], output[start : start + items]
        padded = torch.nn.functional.pad(part.to(torch.int32), (0, 0, left, right, top, bottom))
        for a, b, taken in tap_slices(geometry):
            total.addcmul_(padded[:, *taken, :, None], weight[a * geometry.kernel[1] + b])  # wraps mod 2**32
    return output.view(len(image), *geometry.output_image)


def _chunks(geometry: Geometry, planes: Tensor) -> Iterator[tuple[slice, slice]]:
    """(items, output rows), so that the patches of each chunk stay within `_PATCH_BYTES`."""
    count, batch = planes.shape[:2]
    height, width, _ = geometry.output_image
    row_bytes = count * width * geometry.taps * geometry.group_inputs * planes.element_size()
    limit = max(1, _PATCH_BYTES // row_bytes)
    items, rows = max(1, limit // height), min(limit, height)
    for item in range(0, batch, items):
        for row in range(0, height, rows):
            yield slice(item, min(batch, item + items)), slice(row, min(height, row + rows))


def _gather(geometry: Geometry, planes: Tensor, rows: slice, group: int) -> Tensor:
    """The patches of some output rows for one group: [planes, pixels, taps * inputs]; a view where it can be one."""
    strides = planes.stride()
    shape = (*planes.shape[:2], rows.stop - rows.start, geometry.output_image[1], *geometry.kernel)
    steps = (
        *strides[:2],
        strides[2] * geometry.stride[0],
        strides[3] * geometry.stride[1],
        strides[2] * geometry.dilation[0],
        strides[3] * geometry.dilation[1],
    )
    offset = rows.start * geometry.stride[0] * strides[2] + group * geometry.group_inputs
    patches = planes.as_strided(
        (*shape, geometry.group_inputs), (*steps, 1), storage_offset=planes.storage_offset() + offset
    )
    pixels = math.prod(shape[1:4])
    return patches.reshape(len(planes), pixels, geometry.taps * geometry.group_inputs)


def extreme_cases() -> Iterator[tuple[LinearMap, NDArray[np.int8], Words]]:
    """Maps over every path, with the values at which digits, pairs and saturating instructions would show."""
    ones, square = (1, 1), (1, 1, 1, 1)
    maps: tuple[tuple[LinearMap, Shape, Shape], ...] = (
        (Dense("dense"), (1029, 35), (1029,)),  # few rows, odd extents, sums far beyond 2^31
        (Dense("tokens"), (128, 64), (17, 128)),
        (Dense("narrow"), (5, 1), (7, 5)),
        (Convolution("image", ones, square, ones, 1), (3, 3, 16, 33), (5, 7, 16)),
        (Convolution("grouped", (2, 1), (1, 0, 0, 2), (1, 2), 3), (3, 2, 5, 51), (5, 6, 15)),
        (Convolution("depthwise", ones, square, ones, 19), (3, 3, 1, 38), (4, 5, 19)),
    )
    edges = [-(2**31), 2**31 - 1, 0x7F7F7F7F, -0x7F7F7F80, -0x7F7F7F81, 32639, 32640, -32896, -32897, 127, -128, 0, 1]
    words = np.array(edges, dtype=np.int32)
    small = np.array([-(2**15), 2**15 - 1, 16383, -16383, 127, -128, 128, 0], dtype=np.int16)
    generator = np.random.default_rng(0)  # which extreme stands where: no secret
    for linear_map, weight_shape, item in maps:
        weight = generator.choice(np.array([-127, 127, 126, -1, 0], dtype=np.int8), weight_shape)
        weight[..., 0], weight[..., -1] = -127, 127
        # an item of digits 127, one of -128: where sums of bytes saturate (as u8*s8 pairs do), they do so here
        uniform = np.ones((1, *item), dtype=np.int32)
        mixed = generator.choice(words, (1, *item))
        yield (
            linear_map,
            weight,
            np.concatenate([mixed, uniform * np.int32(0x7F7F7F7F), uniform * np.int32(0x7F7F7F80)]),
        )
        yield linear_map, weight, generator.choice(small, (2, *item))
