"""What a linear map does to a shape, what it costs, and how large its results can be.

Every map is one `Geometry`: a convolution over an image. `Dense` on (..., features) is the 1x1 convolution of the
image (rows, 1, features), so nothing below this file needs to know both.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from slalom.errors import ModelError
from slalom.plan.steps import Convolution, Dense, LinearMap, Shape

_BLOCK_ELEMENTS = 2**20


@dataclass(frozen=True, slots=True)
class Geometry:
    """A linear map with every extent known. Names as in `Convolution`; images are (height, width, channels)."""

    input_image: tuple[int, int, int]
    output_image: tuple[int, int, int]
    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int, int, int]  # top, bottom, left, right
    dilation: tuple[int, int]
    groups: int
    output_shape: Shape

    @property
    def group_inputs(self) -> int:
        """Input channels that one output channel sees."""
        return self.input_image[2] // self.groups

    @property
    def group_outputs(self) -> int:
        """Output channels of one group."""
        return self.output_image[2] // self.groups

    @property
    def taps(self) -> int:
        """Kernel positions."""
        return self.kernel[0] * self.kernel[1]

    @property
    def pixels(self) -> int:
        """Output positions of one item."""
        return self.output_image[0] * self.output_image[1]

    @property
    def weight_shape(self) -> tuple[int, int, int, int]:
        """The weights as a convolution's: a view of the tensor's own row-major order."""
        return (*self.kernel, self.group_inputs, self.output_image[2])

    def words(self) -> npt.NDArray[np.int64]:
        """The geometry as the extension reads it (linear.hpp: MapGeometry)."""
        corner = (self.padding[0], self.padding[2])
        extents = (*self.input_image, *self.output_image, *self.kernel, *self.stride, *corner, *self.dilation)
        return np.array((*extents, self.groups), dtype=np.int64)


def map_geometry(linear_map: LinearMap, weight_shape: Shape, input_shape: Shape) -> Geometry:
    """The geometry of one map over items of `input_shape`. Raises ModelError naming what does not fit."""
    if isinstance(linear_map, Dense):
        return _dense_geometry(linear_map, weight_shape, input_shape)
    return _convolution_geometry(linear_map, weight_shape, input_shape)


def map_output_shape(linear_map: LinearMap, weight_shape: Shape, input_shape: Shape) -> Shape:
    """The item shape that one map gives. Raises ModelError naming what does not fit."""
    return map_geometry(linear_map, weight_shape, input_shape).output_shape


def chain_geometries(
    maps: Sequence[LinearMap], weights: Mapping[str, npt.NDArray[np.int8]], input_shape: Shape
) -> tuple[Geometry, ...]:
    """The geometry of each map of a chain, in order. Raises ModelError naming what does not fit."""
    if not maps:
        raise ModelError("a linear step needs at least one map")
    geometries: list[Geometry] = []
    for linear_map in maps:
        if linear_map.weight not in weights:
            raise ModelError(f"no tensor is named {linear_map.weight}")
        geometries.append(map_geometry(linear_map, weights[linear_map.weight].shape, input_shape))
        input_shape = geometries[-1].output_shape
    return tuple(geometries)


def multiply_accumulates(linear_map: LinearMap, weight_shape: Shape, input_shape: Shape) -> int:
    """Multiplications of one item through one map, padding included."""
    geometry = map_geometry(linear_map, weight_shape, input_shape)
    return geometry.pixels * math.prod(geometry.weight_shape)


def weight_bound(maps: Sequence[LinearMap], weights: Mapping[str, npt.NDArray[np.int8]]) -> int:
    """The least constant proved with |y| <= bound * max|x| for every output y of the chain, over the integers.

    For one map it is the greatest absolute column sum of the weights, and exact: some x reaches it. For a chain,
    per-channel bounds are propagated: bound[o] = sum |weight[a, b, c, o]| * bound_before[c]. (Values between the maps
    of a chain may wrap: arithmetic mod 2**32 is exact as soon as the last result fits.) Raises ModelError for maps
    that do not follow one another.
    """
    if not maps:
        raise ModelError("a linear step needs at least one map")
    channels: list[int] | None = None
    for linear_map in maps:
        channels = _channel_bounds(linear_map, weights[linear_map.weight], channels)
    return max(channels or [0])


def _channel_bounds(linear_map: LinearMap, weight: npt.NDArray[np.int8], before: list[int] | None) -> list[int]:
    groups = linear_map.groups if isinstance(linear_map, Convolution) else 1
    _require(weight.ndim in (2, 4) and weight.size > 0, linear_map, f"a weight has 2 or 4 axes, not {weight.shape}")
    rows, outputs = weight.shape[-2], weight.shape[-1]
    before = [1] * (rows * groups) if before is None else before
    _require(len(before) == rows * groups, linear_map, f"{rows * groups} input channels do not follow {len(before)}")
    _require(outputs % groups == 0, linear_map, f"{outputs} output channels do not divide into {groups} groups")
    width = outputs // groups
    bounds: list[int] = []
    for group in range(groups):
        columns = weight[..., group * width : (group + 1) * width].reshape(-1, rows, width)
        bounds += _column_bounds(columns, before[group * rows : (group + 1) * rows])
    return bounds


def _column_bounds(columns: npt.NDArray[np.int8], before: list[int]) -> list[int]:
    """sum over (tap, row) of |columns[tap, row, o]| * before[row], without overflow."""
    taps, rows, width = columns.shape
    fits = taps * rows * 128 * max(before) < 2**63
    factors = np.array(before, dtype=np.int64 if fits else object)
    total = np.zeros(width, dtype=factors.dtype)
    block = max(1, _BLOCK_ELEMENTS // width)
    for tap in range(taps):
        for start in range(0, rows, block):
            magnitudes = np.abs(columns[tap, start : start + block].astype(np.int64))
            total = total + factors[start : start + block] @ magnitudes.astype(factors.dtype)
    return [int(bound) for bound in total]


def _dense_geometry(dense: Dense, weight_shape: Shape, input_shape: Shape) -> Geometry:
    _require(len(weight_shape) == 2, dense, f"a dense weight has 2 axes, not {len(weight_shape)}")
    inputs, outputs = weight_shape
    _require(len(input_shape) >= 1, dense, "a dense map needs an axis to act on")
    _require(input_shape[-1] == inputs, dense, f"the last axis has {input_shape[-1]} features, the weight {inputs}")
    _require(min(*input_shape, *weight_shape) > 0, dense, f"an axis is empty: {input_shape} through {weight_shape}")
    rows = math.prod(input_shape[:-1])
    return Geometry(
        input_image=(rows, 1, inputs),
        output_image=(rows, 1, outputs),
        kernel=(1, 1),
        stride=(1, 1),
        padding=(0, 0, 0, 0),
        dilation=(1, 1),
        groups=1,
        output_shape=(*input_shape[:-1], outputs),
    )


def _convolution_geometry(convolution: Convolution, weight_shape: Shape, input_shape: Shape) -> Geometry:
    _require(len(weight_shape) == 4, convolution, f"a convolution weight has 4 axes, not {len(weight_shape)}")
    _require(len(input_shape) == 3, convolution, f"an image has 3 axes, not {len(input_shape)}")
    _require(min(*input_shape, *weight_shape) > 0, convolution, f"an axis is empty: {input_shape}, {weight_shape}")
    _require(min(*convolution.stride, *convolution.dilation, convolution.groups) > 0, convolution,
             "stride, dilation and groups are at least 1")  # fmt: skip
    _require(min(convolution.padding) >= 0, convolution, "padding is never negative")
    height, width, channels = input_shape
    rows, columns, group_inputs, outputs = weight_shape
    _require(channels == group_inputs * convolution.groups, convolution,
             f"{channels} input channels, but {convolution.groups} groups of {group_inputs}")  # fmt: skip
    _require(outputs % convolution.groups == 0, convolution,
             f"{outputs} output channels do not divide into {convolution.groups} groups")  # fmt: skip
    top, bottom, left, right = convolution.padding
    output_height = _extent(height + top + bottom, rows, convolution.stride[0], convolution.dilation[0])
    output_width = _extent(width + left + right, columns, convolution.stride[1], convolution.dilation[1])
    _require(min(output_height, output_width) > 0, convolution,
             f"a {rows}x{columns} kernel does not fit the padded image of {height}x{width}")  # fmt: skip
    return Geometry(
        input_image=(height, width, channels),
        output_image=(output_height, output_width, outputs),
        kernel=(rows, columns),
        stride=convolution.stride,
        padding=convolution.padding,
        dilation=convolution.dilation,
        groups=convolution.groups,
        output_shape=(output_height, output_width, outputs),
    )


def _extent(padded: int, kernel: int, stride: int, dilation: int) -> int:
    span = dilation * (kernel - 1) + 1
    return (padded - span) // stride + 1 if padded >= span else 0


def _require(holds: bool, linear_map: LinearMap, message: str) -> None:
    if not holds:
        raise ModelError(f"{linear_map.weight}: {message}")
