"""The tap-by-tap maps against the sum in the vocabulary's docstring, and the scattered transposes against the maps."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest

from reference.linear import apply_map, apply_step, exact, output_shape, transpose_map, transpose_step
from slalom.plan.steps import Accumulator, Convolution, Dense, Linear, LinearMap

Array = np.ndarray[Any, Any]

# (height, width, inputs), (kernel), outputs, stride, padding, dilation, groups
GEOMETRIES = [
    ((1, 1, 1), (1, 1), 1, (1, 1), (0, 0, 0, 0), (1, 1), 1),
    ((5, 4, 3), (3, 2), 4, (1, 1), (1, 1, 1, 0), (1, 1), 1),
    ((7, 6, 4), (3, 3), 6, (2, 3), (0, 2, 1, 0), (1, 1), 2),
    ((6, 9, 3), (2, 3), 3, (1, 2), (2, 1, 0, 3), (2, 3), 3),
    ((4, 4, 2), (5, 5), 4, (1, 1), (2, 2, 2, 2), (1, 1), 2),  # a kernel larger than the image
    ((3, 3, 2), (1, 1), 5, (3, 3), (2, 2, 2, 2), (1, 1), 1),  # some outputs see padding alone
    ((8, 3, 6), (3, 1), 6, (4, 1), (0, 0, 0, 0), (3, 1), 6),
]


def make(geometry: tuple[Any, ...], seed: int) -> tuple[LinearMap, dict[str, Array], Array]:
    (height, width, inputs), kernel, outputs, stride, padding, dilation, groups = geometry
    random = np.random.default_rng(seed)
    tensors = {"w": random.integers(-127, 128, (*kernel, inputs // groups, outputs)).astype(np.int8)}
    x = random.integers(-16383, 16384, (2, height, width, inputs)).astype(np.int16)
    return Convolution("w", stride, padding, dilation, groups), tensors, x


def by_definition(convolution: Convolution, weight: Array, x: Array, place: tuple[int, ...]) -> int:
    """y[i, j, o] exactly as the docstring of `Convolution` writes it."""
    n, i, j, o = place
    per_group = weight.shape[3] // convolution.groups
    total = 0
    for a, b, c in product(*(range(extent) for extent in weight.shape[:3])):
        row = i * convolution.stride[0] + a * convolution.dilation[0] - convolution.padding[0]
        column = j * convolution.stride[1] + b * convolution.dilation[1] - convolution.padding[2]
        if 0 <= row < x.shape[1] and 0 <= column < x.shape[2]:
            total += int(weight[a, b, c, o]) * int(x[n, row, column, o // per_group * weight.shape[2] + c])
    return total


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_convolution_is_its_definition(geometry: tuple[Any, ...]) -> None:
    convolution, tensors, x = make(geometry, 1)
    assert isinstance(convolution, Convolution)
    y = apply_map(convolution, tensors, x)
    assert y.shape[1:] == output_shape(convolution, tensors, x.shape[1:])
    for place in np.ndindex(*y.shape):
        assert y[place] == by_definition(convolution, tensors["w"], x, place)


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_transpose_is_the_transposed_matrix(geometry: tuple[Any, ...]) -> None:
    convolution, tensors, x = make(geometry, 2)
    count = x[0].size
    columns = apply_map(convolution, tensors, np.eye(count, dtype=np.int64).reshape(count, *x.shape[1:]))
    shape = columns.shape[1:]
    rows = np.eye(columns[0].size, dtype=np.int64).reshape(-1, *shape)
    transposed = transpose_map(convolution, tensors, rows, x.shape[1:])
    assert (transposed.reshape(len(rows), -1) == columns.reshape(count, -1).T).all()


@pytest.mark.parametrize("shape", [(4,), (3, 4), (2, 3, 4)])
def test_dense_acts_on_the_last_axis(shape: tuple[int, ...]) -> None:
    tensors = {"w": np.arange(-10, 10).astype(np.int8).reshape(4, 5)}
    x = np.arange(2 * np.prod(shape)).reshape(2, *shape) - 7
    y = apply_map(Dense("w"), tensors, x)
    for place in np.ndindex(*y.shape):
        assert y[place] == sum(int(tensors["w"][i, place[-1]]) * int(x[(*place[:-1], i)]) for i in range(4))
    s = np.arange(y.size).reshape(y.shape)
    assert (s * y).sum() == (transpose_map(Dense("w"), tensors, s, shape) * x).sum()


def test_chain_is_its_maps_in_order_and_transposed_in_reverse() -> None:
    random = np.random.default_rng(3)
    maps = (
        Convolution("a", (2, 1), (1, 0, 1, 1), (1, 2), 2),
        Convolution("b", (1, 2), (0, 1, 0, 0), (1, 1), 1),
        Dense("c"),
    )
    shapes = {"a": (3, 2, 1, 4), "b": (2, 1, 4, 3), "c": (3, 5)}
    tensors = {name: random.integers(-127, 128, shape).astype(np.int8) for name, shape in shapes.items()}
    x = random.integers(-2047, 2048, (2, 6, 5, 2))
    y = apply_map(maps[2], tensors, apply_map(maps[1], tensors, apply_map(maps[0], tensors, x)))
    step = Linear("chain", "x", maps, Accumulator(y.shape[1:], 2**31 - 1))
    assert (apply_step(step, tensors, x) == y).all()
    s = random.integers(0, 101, y.shape)
    assert (s * y).sum() == (transpose_step(step, tensors, s, x.shape[1:]) * x).sum()


def test_results_beyond_64_bits_are_exact() -> None:
    tensors = {"w": np.full((3, 1), -127, np.int8)}
    x = np.full((1, 3), 2**62, dtype=object)
    assert apply_map(Dense("w"), tensors, x)[0, 0] == -127 * 3 * 2**62
    assert transpose_map(Dense("w"), tensors, np.full((1, 1), 2**62, dtype=object), (3,))[0, 0] == -127 * 2**62


def test_type_changes_exactly_at_the_bound() -> None:
    weight = np.array([[127]], np.int8)
    assert exact(weight, np.array([[(2**63 - 1) // 127]], dtype=object))[1].dtype == np.int64
    assert exact(weight, np.array([[(2**63 - 1) // 127 + 1]], dtype=object))[1].dtype == object
    assert exact(weight, np.zeros((0, 1), np.int64))[1].dtype == np.int64
