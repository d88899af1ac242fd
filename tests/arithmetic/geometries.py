"""Small linear maps of every kind: the cases that the tests of this folder share."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from hypothesis import strategies as st

from slalom.plan.steps import Convolution, Dense, LinearMap, Shape


@dataclass(frozen=True)
class Case:
    """One map, the shape of its weight, and the shape of an item it takes."""

    linear_map: LinearMap
    weight_shape: Shape
    input_shape: Shape

    def draw_weight(self, rng: np.random.Generator) -> npt.NDArray[np.int8]:
        """Random weights with the extremes among them."""
        weight = rng.integers(-127, 128, self.weight_shape)
        extreme = rng.choice([-127, 127], self.weight_shape)
        return np.where(rng.random(self.weight_shape) < 0.3, extreme, weight).astype(np.int8)


def convolution_case(
    image: Shape,
    kernel: Shape,
    outputs: int,
    stride: tuple[int, int] = (1, 1),
    padding: tuple[int, int, int, int] = (0, 0, 0, 0),
    dilation: tuple[int, int] = (1, 1),
    groups: int = 1,
) -> Case:
    """A convolution over `image` (height, width, channels)."""
    convolution = Convolution("w", stride, padding, dilation, groups)
    return Case(convolution, (*kernel, image[2] // groups, outputs), image)


def dense_case(item: Shape, outputs: int) -> Case:
    """A dense map over the last axis of `item`."""
    return Case(Dense("w"), (item[-1], outputs), item)


GRID: dict[str, Case] = {
    "pointwise": convolution_case((5, 7, 17), (1, 1), 33),
    "pointwise_wide": convolution_case((6, 6, 64), (1, 1), 128),
    "pointwise_strided": convolution_case((7, 5, 3), (1, 1), 5, stride=(2, 3)),
    "three_by_three": convolution_case((9, 8, 16), (3, 3), 32, padding=(1, 1, 1, 1)),
    "stem": convolution_case((11, 13, 3), (7, 7), 17, stride=(2, 2), padding=(3, 2, 3, 2)),
    "asymmetric": convolution_case((6, 7, 5), (3, 2), 3, stride=(2, 1), padding=(0, 1, 2, 0)),
    "dilated": convolution_case((12, 11, 4), (3, 3), 33, padding=(2, 3, 1, 0), dilation=(2, 3)),
    "one_channel": convolution_case((5, 5, 1), (3, 3), 1, padding=(1, 1, 1, 1)),
    "patches": convolution_case((16, 16, 3), (8, 8), 24, stride=(8, 8)),
    "grouped": convolution_case((6, 5, 12), (3, 3), 18, padding=(1, 0, 1, 0), groups=3),
    "grouped_odd": convolution_case((5, 5, 51), (3, 3), 51, padding=(1, 1, 1, 1), groups=17),
    "depthwise": convolution_case((7, 9, 33), (3, 3), 33, padding=(1, 1, 1, 1), groups=33),
    "depthwise_strided": convolution_case((9, 9, 70), (5, 5), 70, stride=(2, 2), padding=(1, 2, 1, 2), groups=70),
    "depthwise_multiplier": convolution_case((6, 5, 7), (3, 3), 21, padding=(1, 1, 1, 1), groups=7),
    "depthwise_dilated": convolution_case((9, 8, 16), (3, 3), 16, padding=(2, 2, 2, 2), dilation=(2, 2), groups=16),
    "padding_beyond_kernel": convolution_case((2, 2, 3), (2, 2), 4, padding=(3, 3, 4, 4)),
    "dense": dense_case((129,), 33),
    "dense_one": dense_case((1,), 1),
    "dense_sequence": dense_case((5, 3, 17), 10),
}


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Any small map: stride, asymmetric padding, dilation, groups, depthwise, dense over sequences."""
    channels = draw(st.sampled_from([1, 2, 3, 5, 16, 17, 33]))
    outputs = draw(st.sampled_from([1, 3, 8, 17, 33]))
    if draw(st.booleans()) and draw(st.booleans()):
        return dense_case((*draw(st.lists(st.integers(1, 4), max_size=2)), channels), outputs)
    groups = draw(st.sampled_from([1, 1, 2, 3, 5]))
    kind = draw(st.sampled_from(["grouped", "depthwise"]))
    group_inputs = 1 if kind == "depthwise" else draw(st.sampled_from([1, 2, 3, 17]))
    if kind == "depthwise":
        groups = channels
    pair = st.tuples(st.integers(1, 3), st.integers(1, 3))
    kernel, stride, dilation = draw(pair), draw(pair), draw(pair)
    padding = draw(st.tuples(*[st.integers(0, 3)] * 4))
    height = max(1, dilation[0] * (kernel[0] - 1) + 1 - padding[0] - padding[1]) + draw(st.integers(0, 5))
    width = max(1, dilation[1] * (kernel[1] - 1) + 1 - padding[2] - padding[3]) + draw(st.integers(0, 5))
    group_outputs = draw(st.integers(1, 3)) if groups > 1 else outputs
    image = (height, width, groups * group_inputs)
    return convolution_case(image, kernel, groups * group_outputs, stride, padding, dilation, groups)


def draw_words(rng: np.random.Generator, shape: Shape, dtype: type[np.int16] | type[np.int32]) -> npt.NDArray[np.int_]:
    """Random integers over the whole range of `dtype`, with the extremes and the halves' edges among them."""
    limits = np.iinfo(dtype)
    edges = [limits.min, limits.min + 1, limits.max, -1, 0, 1, 16383, -16383, 32767, -32768]
    if dtype is np.int32:
        edges += [32768, -32769, 65535, 65536, -65536, 0x7FFF8000, 0x7FFF7FFF]
    words = rng.integers(limits.min, limits.max, shape, endpoint=True)
    return np.where(rng.random(shape) < 0.3, rng.choice(edges, shape), words).astype(dtype)
