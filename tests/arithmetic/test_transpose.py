"""Probe images: <W x, s> = <x, t> mod p for every map."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slalom import _native
from slalom.arithmetic import transpose
from slalom.arithmetic.dispatch import Dispatch, make_dispatch
from slalom.arithmetic.linear import apply_maps
from slalom.arithmetic.transpose import transpose_maps, transpose_rank_one
from slalom.errors import ApiMisuse, ModelError
from slalom.plan.shapes import chain_geometries
from slalom.plan.steps import Convolution, Dense
from tests.arithmetic.geometries import GRID, Case, cases, convolution_case
from tests.isas import FUSED_ISAS

P = 2**51 - 129
DISPATCHES = [make_dispatch(isa, 1) for isa in FUSED_ISAS]
CHAIN = (
    Convolution("depthwise", (2, 1), (1, 0, 1, 2), (1, 1), 6),
    Convolution("pointwise", (1, 1), (0, 0, 0, 0), (1, 1), 2),
    Dense("dense"),
)
CHAIN_SHAPES = {"depthwise": (3, 3, 1, 12), "pointwise": (1, 1, 6, 8), "dense": (8, 5)}


def inner(x: npt.NDArray[np.int_], y: npt.NDArray[np.int_]) -> int:
    """<x, y> mod p in Python integers."""
    return sum(int(a) * int(b) for a, b in zip(x.ravel(), y.ravel(), strict=True)) % P


def draw_elements(rng: np.random.Generator, shape: tuple[int, ...]) -> npt.NDArray[np.uint64]:
    """Field elements with the extremes among them."""
    elements = rng.integers(0, P, shape, dtype=np.uint64)
    extremes = rng.choice(np.array([0, 1, P - 1, 2**26 - 1, 2**26, 2**50], np.uint64), shape)
    return np.where(rng.random(shape) < 0.3, extremes, elements)


def check_identity(maps, weights, input_shape, seed: int) -> None:
    """The identity for a random activation, small enough that W x does not wrap, and a random probe."""
    rng = np.random.default_rng(seed)
    probe = draw_elements(rng, chain_geometries(maps, weights, input_shape)[-1].output_shape)
    image = transpose_maps(maps, weights, input_shape, probe)
    assert image.dtype == np.uint64
    assert image.shape == input_shape
    assert int(image.max()) < P
    x = rng.integers(-300, 301, (1, *input_shape)).astype(np.int16)
    assert inner(apply_maps(maps, weights, x), probe) == inner(x, image)


@pytest.mark.parametrize("case", GRID.values(), ids=GRID)
def test_identity(case: Case) -> None:
    weights = {"w": case.draw_weight(np.random.default_rng(6))}
    check_identity([case.linear_map], weights, case.input_shape, 7)


@settings(deadline=None, max_examples=40)
@given(case=cases(), seed=st.integers(0, 2**32 - 1))
def test_identity_on_any_geometry(case: Case, seed: int) -> None:
    weights = {"w": case.draw_weight(np.random.default_rng(seed))}
    check_identity([case.linear_map], weights, case.input_shape, seed)


def draw_chain(seed: int) -> dict[str, npt.NDArray[np.int8]]:
    rng = np.random.default_rng(seed)
    return {name: rng.integers(-4, 5, shape, np.int8) for name, shape in CHAIN_SHAPES.items()}


def test_identity_of_a_chain() -> None:
    check_identity(CHAIN, draw_chain(8), (7, 6, 6), 9)


@pytest.mark.parametrize(("name", "value"), [("_EXACT_TERMS", 18), ("_BLOCK_ELEMENTS", 20)])
@pytest.mark.parametrize("case", ["three_by_three", "grouped", "dense", "depthwise_multiplier"])
def test_blocks_give_the_same_image(case: str, name: str, value: int, monkeypatch) -> None:
    chosen = GRID[case]
    rng = np.random.default_rng(10)
    weights = {"w": chosen.draw_weight(rng)}
    geometry = chain_geometries([chosen.linear_map], weights, chosen.input_shape)[-1]
    probe = draw_elements(rng, geometry.output_shape)
    whole = transpose_maps([chosen.linear_map], weights, chosen.input_shape, probe)
    monkeypatch.setattr(transpose, name, value)
    blocked = transpose_maps([chosen.linear_map], weights, chosen.input_shape, probe)
    np.testing.assert_array_equal(blocked, whole)


def test_greatest_sums_are_exact() -> None:
    """Every weight and every probe element extreme, over more outputs than one exact block holds."""
    outputs = 2**19 + 5
    weights = {"w": np.full((2, outputs), -127, np.int8)}
    probe = np.full(outputs, P - 1, np.uint64)
    expected = np.full(2, (127 * outputs) % P, np.uint64)
    np.testing.assert_array_equal(transpose_maps([Dense("w")], weights, (2,), probe), expected)
    ones = np.ones(1, np.uint64)
    np.testing.assert_array_equal(transpose_rank_one([Dense("w")], weights, (2,), ones, probe), expected)


def outer(spatial: npt.NDArray[np.uint64], channel: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """spatial[i] * channel[j] mod p in Python integers."""
    return np.array([[int(a) * int(b) % P for b in channel] for a in spatial], np.uint64)


def check_rank_one(maps, weights, input_shape, seed: int) -> None:
    rng = np.random.default_rng(seed)
    geometry = chain_geometries(maps, weights, input_shape)[-1]
    spatial, channel = draw_elements(rng, (geometry.pixels,)), draw_elements(rng, (geometry.output_image[2],))
    probe = outer(spatial, channel).reshape(geometry.output_shape)
    expected = transpose_maps(maps, weights, input_shape, probe)
    np.testing.assert_array_equal(transpose_rank_one(maps, weights, input_shape, spatial, channel), expected)
    for dispatch in DISPATCHES:
        image = transpose_rank_one(maps, weights, input_shape, spatial, channel, dispatch)
        np.testing.assert_array_equal(image, expected)


@pytest.mark.parametrize("case", GRID.values(), ids=GRID)
def test_rank_one_equals_the_probe_written_out(case: Case) -> None:
    check_rank_one([case.linear_map], {"w": case.draw_weight(np.random.default_rng(11))}, case.input_shape, 12)


@settings(deadline=None, max_examples=40)
@given(case=cases(), seed=st.integers(0, 2**32 - 1))
def test_rank_one_equals_the_probe_written_out_on_any_geometry(case: Case, seed: int) -> None:
    check_rank_one([case.linear_map], {"w": case.draw_weight(np.random.default_rng(seed))}, case.input_shape, seed)


def test_rank_one_of_a_chain() -> None:
    check_rank_one(CHAIN, draw_chain(13), (7, 6, 6), 14)
    check_rank_one(CHAIN[:2], draw_chain(13), (7, 6, 6), 15)


@pytest.mark.parametrize("dispatch", DISPATCHES[1:], ids=lambda dispatch: dispatch.isa)
def test_greatest_sums_of_products_are_exact(dispatch: Dispatch) -> None:
    """Every factor p - 1, every tap inside, and as many taps as the kernels sum before they reduce."""
    taps = 4096
    case = convolution_case((1, 3, 9), (1, taps), 1, padding=(0, 0, taps - 1, taps - 1))
    weights = {"w": np.full(case.weight_shape, -1, np.int8)}
    geometry = chain_geometries([case.linear_map], weights, case.input_shape)[-1]
    # channel[0] * weight = (p - 1) * -1 = 1, and 1 * -1 * (p - 1) = 1: both K and the factors take the value p - 1
    for factor in (1, P - 1):
        spatial, channel = np.full(geometry.pixels, P - 1, np.uint64), np.full(1, factor, np.uint64)
        image = transpose_rank_one([case.linear_map], weights, case.input_shape, spatial, channel, dispatch)
        expected = taps * (P - 1) * factor * -1 % P
        np.testing.assert_array_equal(image, np.full(case.input_shape, expected, np.uint64))


def test_more_taps_than_the_kernels_sum_fall_to_numpy(monkeypatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("the kernel was called")

    monkeypatch.setattr(transpose, "_NATIVE_TAPS", 48)
    monkeypatch.setattr(_native, "field_outer", refuse)
    case = GRID["stem"]  # 49 taps
    check_rank_one([case.linear_map], {"w": case.draw_weight(np.random.default_rng(16))}, case.input_shape, 17)
    pointwise = GRID["pointwise"]
    with pytest.raises(AssertionError, match="the kernel was called"):
        weights = {"w": pointwise.draw_weight(np.random.default_rng(16))}
        check_rank_one([pointwise.linear_map], weights, pointwise.input_shape, 17)


def test_threads_change_nothing() -> None:
    case = GRID["stem"]
    rng = np.random.default_rng(18)
    weights = {"w": case.draw_weight(rng)}
    geometry = chain_geometries([case.linear_map], weights, case.input_shape)[-1]
    spatial, channel = draw_elements(rng, (geometry.pixels,)), draw_elements(rng, (geometry.output_image[2],))
    expected = transpose_rank_one([case.linear_map], weights, case.input_shape, spatial, channel)
    threaded = make_dispatch(threads=5)
    image = transpose_rank_one([case.linear_map], weights, case.input_shape, spatial, channel, threaded)
    threaded.close()
    np.testing.assert_array_equal(image, expected)


def test_misfits_are_refused() -> None:
    weights = {"w": np.ones((3, 4), np.int8)}
    with pytest.raises(ApiMisuse, match="a probe of this step"):
        transpose_maps([Dense("w")], weights, (3,), np.zeros(3, np.uint64))
    with pytest.raises(ApiMisuse, match="a probe of this step"):
        transpose_maps([Dense("w")], weights, (3,), np.zeros(4, np.int64))  # type: ignore[arg-type]
    with pytest.raises(ApiMisuse, match="a rank-one probe"):
        transpose_rank_one([Dense("w")], weights, (3,), np.zeros(1, np.uint64), np.zeros(3, np.uint64))
    with pytest.raises(ModelError, match="at least one map"):
        transpose_maps([], weights, (3,), np.zeros(4, np.uint64))
    with pytest.raises(ModelError, match="no tensor is named v"):
        transpose_maps([Dense("v")], weights, (3,), np.zeros(4, np.uint64))
