"""The NumPy reference against a loop over Python integers."""

from __future__ import annotations

import itertools

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slalom.arithmetic.linear import apply_map, apply_maps
from slalom.errors import ApiMisuse, ModelError
from slalom.plan.shapes import map_output_shape
from slalom.plan.steps import Convolution, Dense
from tests.arithmetic.geometries import GRID, Case, cases, draw_words


def loop_map(case: Case, weight: npt.NDArray[np.int8], item: npt.NDArray[np.int_]) -> npt.NDArray[np.int32]:
    """One item through one map: the formula of the plan's docstring, one Python integer at a time."""
    shape = map_output_shape(case.linear_map, case.weight_shape, case.input_shape)
    y = np.zeros(shape, np.int32)
    for index in np.ndindex(shape):
        total = _loop_element(case, weight, item, index) % 2**32
        y[index] = total - 2**32 if total >= 2**31 else total
    return y


def _loop_element(case: Case, weight, item, index) -> int:
    linear_map = case.linear_map
    if isinstance(linear_map, Dense):
        return sum(int(weight[i, index[-1]]) * int(item[(*index[:-1], i)]) for i in range(item.shape[-1]))
    rows, columns, group_inputs, outputs = weight.shape
    i, j, o = index
    first = (o // (outputs // linear_map.groups)) * group_inputs
    total = 0
    for a, b in itertools.product(range(rows), range(columns)):
        row = i * linear_map.stride[0] + a * linear_map.dilation[0] - linear_map.padding[0]
        column = j * linear_map.stride[1] + b * linear_map.dilation[1] - linear_map.padding[2]
        if 0 <= row < item.shape[0] and 0 <= column < item.shape[1]:
            total += sum(int(weight[a, b, c, o]) * int(item[row, column, first + c]) for c in range(group_inputs))
    return total


@pytest.mark.parametrize("dtype", [np.int16, np.int32])
@pytest.mark.parametrize("name", [name for name in GRID if name not in ("pointwise_wide", "patches")])
def test_reference_equals_the_loop(name: str, dtype) -> None:
    case = GRID[name]
    rng = np.random.default_rng(3)
    weight, x = case.draw_weight(rng), draw_words(rng, (1, *case.input_shape), dtype)
    np.testing.assert_array_equal(apply_map(case.linear_map, weight, x)[0], loop_map(case, weight, x[0]))


@settings(deadline=None, max_examples=25)
@given(case=cases(), seed=st.integers(0, 2**32 - 1), dtype=st.sampled_from([np.int16, np.int32]))
def test_reference_equals_the_loop_on_any_geometry(case: Case, seed: int, dtype) -> None:
    rng = np.random.default_rng(seed)
    weight, x = case.draw_weight(rng), draw_words(rng, (1, *case.input_shape), dtype)
    np.testing.assert_array_equal(apply_map(case.linear_map, weight, x)[0], loop_map(case, weight, x[0]))


def test_sums_beyond_the_exact_range_of_one_float_product_wrap() -> None:
    features = 2**15 + 3
    x = np.full((1, features), -(2**31), np.int32)
    x[0, -1] = 2**31 - 1
    weight = np.full((features, 2), -127, np.int8)
    expected = (-127 * (-(2**31) * (features - 1) + 2**31 - 1)) % 2**32
    np.testing.assert_array_equal(apply_map(Dense("w"), weight, x).view(np.uint32), [[expected, expected]])


@pytest.mark.parametrize("case", GRID.values(), ids=GRID)
def test_maps_commute_with_wrapping_addition(case: Case) -> None:
    rng = np.random.default_rng(4)
    weight = case.draw_weight(rng)
    x, r = (draw_words(rng, (2, *case.input_shape), np.int32) for _ in range(2))
    together = apply_map(case.linear_map, weight, x + r)
    np.testing.assert_array_equal(
        together, apply_map(case.linear_map, weight, x) + apply_map(case.linear_map, weight, r)
    )


def test_a_chain_applies_its_maps_in_order() -> None:
    rng = np.random.default_rng(5)
    maps = (Convolution("a", (2, 2), (1, 0, 0, 1), (1, 1), 3), Convolution("b", (1, 1), (0, 0, 0, 0), (1, 1), 1))
    weights = {"a": rng.integers(-127, 128, (3, 3, 1, 3), np.int8), "b": rng.integers(-127, 128, (1, 1, 3, 5), np.int8)}
    x = draw_words(rng, (3, 8, 8, 3), np.int16)
    expected = apply_map(maps[1], weights["b"], apply_map(maps[0], weights["a"], x))
    np.testing.assert_array_equal(apply_maps(maps, weights, x), expected)


@pytest.mark.parametrize("dtype", [np.int8, np.int64, np.uint32, np.float32])
def test_other_dtypes_are_refused(dtype) -> None:
    with pytest.raises(ApiMisuse, match="int16 or int32"):
        apply_map(Dense("w"), np.ones((3, 2), np.int8), np.ones((1, 3), dtype))


def test_misfits_are_refused() -> None:
    with pytest.raises(ModelError, match="4 features, the weight 3"):
        apply_map(Dense("w"), np.ones((3, 2), np.int8), np.ones((1, 4), np.int16))
