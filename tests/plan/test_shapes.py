"""Shapes, costs and bounds of linear maps."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from slalom.arithmetic.linear import apply_map, apply_maps
from slalom.errors import ModelError
from slalom.plan.shapes import map_geometry, map_output_shape, multiply_accumulates, weight_bound
from slalom.plan.steps import Convolution, Dense
from tests.arithmetic.geometries import GRID, Case, convolution_case, dense_case

CONVOLUTION = Convolution("w", (1, 1), (0, 0, 0, 0), (1, 1), 1)


@pytest.mark.parametrize("case", GRID.values(), ids=GRID)
def test_output_shape_is_the_shape_of_the_result(case: Case) -> None:
    x = np.zeros((2, *case.input_shape), np.int16)
    y = apply_map(case.linear_map, np.zeros(case.weight_shape, np.int8), x)
    assert y.shape == (2, *map_output_shape(case.linear_map, case.weight_shape, case.input_shape))


def test_known_shapes_and_costs() -> None:
    stem = convolution_case((224, 224, 3), (7, 7), 64, stride=(2, 2), padding=(3, 3, 3, 3))
    assert map_output_shape(stem.linear_map, stem.weight_shape, stem.input_shape) == (112, 112, 64)
    assert multiply_accumulates(stem.linear_map, stem.weight_shape, stem.input_shape) == 112 * 112 * 64 * 49 * 3
    depthwise = convolution_case((112, 112, 96), (3, 3), 96, padding=(1, 1, 1, 1), groups=96)
    cost = multiply_accumulates(depthwise.linear_map, depthwise.weight_shape, depthwise.input_shape)
    assert cost == 112 * 112 * 96 * 9
    sequence = dense_case((197, 768), 3072)
    assert map_output_shape(sequence.linear_map, sequence.weight_shape, sequence.input_shape) == (197, 3072)
    assert multiply_accumulates(sequence.linear_map, sequence.weight_shape, sequence.input_shape) == 197 * 768 * 3072
    assert map_geometry(sequence.linear_map, sequence.weight_shape, sequence.input_shape).input_image == (197, 1, 768)


@pytest.mark.parametrize(
    ("linear_map", "weight_shape", "input_shape", "message"),
    [
        (CONVOLUTION, (3, 3, 4), (8, 8, 4), "4 axes, not 3"),
        (CONVOLUTION, (3, 3, 4, 5), (8, 8), "3 axes, not 2"),
        (CONVOLUTION, (3, 3, 4, 5), (8, 8, 3), "3 input channels, but 1 groups of 4"),
        (CONVOLUTION, (3, 3, 4, 5), (2, 8, 4), "does not fit the padded image of 2x8"),
        (CONVOLUTION, (3, 3, 4, 0), (8, 8, 4), "an axis is empty"),
        (Convolution("w", (0, 1), (0, 0, 0, 0), (1, 1), 1), (1, 1, 1, 1), (2, 2, 1), "at least 1"),
        (Convolution("w", (1, 1), (0, -1, 0, 0), (1, 1), 1), (1, 1, 1, 1), (2, 2, 1), "never negative"),
        (Convolution("w", (1, 1), (0, 0, 0, 0), (1, 1), 2), (1, 1, 2, 5), (2, 2, 4), "5 output channels"),
        (Dense("w"), (3, 3, 3, 3), (3,), "2 axes, not 4"),
        (Dense("w"), (4, 5), (3,), "3 features, the weight 4"),
        (Dense("w"), (4, 5), (), "needs an axis"),
        (Dense("w"), (4, 5), (0, 4), "an axis is empty"),
    ],
)
def test_misfits_are_named(linear_map, weight_shape, input_shape, message) -> None:
    with pytest.raises(ModelError, match=rf"^w: .*{message}"):
        map_output_shape(linear_map, weight_shape, input_shape)


@pytest.mark.parametrize("case", GRID.values(), ids=GRID)
def test_bound_of_one_map_is_the_greatest_column_sum(case: Case) -> None:
    weight = case.draw_weight(np.random.default_rng(1))
    columns = weight.reshape(-1, weight.shape[-1]).astype(object)
    expected = max(sum(abs(entry) for entry in column) for column in columns.T)
    assert weight_bound([case.linear_map], {"w": weight}) == expected


def test_bound_of_a_chain_holds_and_is_reached_without_cancellation() -> None:
    rng = np.random.default_rng(2)
    maps = (
        Convolution("depthwise", (1, 1), (1, 1, 1, 1), (1, 1), 4),
        Convolution("pointwise", (1, 1), (0, 0, 0, 0), (1, 1), 2),
    )
    shapes = {"depthwise": (3, 3, 1, 4), "pointwise": (1, 1, 2, 6)}
    signed = {name: rng.integers(-127, 128, shape).astype(np.int8) for name, shape in shapes.items()}
    bound = weight_bound(maps, signed)
    # with weights of one sign nothing cancels: an image of ones reaches the bound
    positive = {name: np.abs(weight) for name, weight in signed.items()}
    assert weight_bound(maps, positive) == bound
    assert apply_maps(maps, positive, np.ones((1, 3, 3, 4), np.int16)).max() == bound
    for corner in itertools.product([-1, 1], repeat=9):
        image = np.repeat(np.array(corner, np.int16).reshape(1, 3, 3, 1), 4, axis=3)
        assert np.abs(apply_maps(maps, signed, image)).max() <= bound


def test_bound_of_a_long_chain_does_not_overflow() -> None:
    weights = {name: np.full((9, 9), -127, np.int8) for name in "abcdefgh"}
    assert weight_bound([Dense(name) for name in weights], weights) == (9 * 127) ** 8


def test_bound_refuses_maps_that_do_not_follow() -> None:
    weights = {"a": np.ones((3, 4), np.int8), "b": np.ones((5, 2), np.int8)}
    with pytest.raises(ModelError, match="5 input channels do not follow 4"):
        weight_bound([Dense("a"), Dense("b")], weights)
    with pytest.raises(ModelError, match="at least one map"):
        weight_bound([], weights)
