"""The input activation: the native twin equals the reference, and finds every number that is none."""

from __future__ import annotations

import numpy as np
import pytest

from slalom.arithmetic.dispatch import Isa, make_dispatch
from slalom.arithmetic.entry import quantise_images
from slalom.arithmetic.pointwise import Requantisation, prepare_requantisation
from slalom.plan.steps import Activation
from tests.isas import FUSED_ISAS

EXTREMES = np.array(
    [
        0.0,
        -0.0,
        0.5,
        -0.5,
        1.5,
        -1.5,
        2.5,
        1e-45,
        -1e-45,
        1e30,
        -1e30,
        3.4e38,
        -3.4e38,
        2047.5,
        -2047.5,
        2048.5,
        16383.5,
    ],
    np.float32,
)


SHAPES = [((1, 3, 5, 7), True), ((4, 3, 8, 8), True), ((2, 1, 17), True), ((3, 13), False), ((2, 6, 4), False)]


def output_of(bits: int, scale: float) -> Requantisation:
    return prepare_requantisation(Activation((1,), scale, bits))


@pytest.mark.parametrize("isa", FUSED_ISAS)
@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize(("bits", "scale"), [(12, 1.0), (12, 2.0**-7), (15, 0.3), (2, 0.01), (8, 2e-38)])
@pytest.mark.parametrize(
    ("shape", "first"),
    [((1, 3, 5, 7), True), ((4, 3, 8, 8), True), ((2, 1, 17), True), ((3, 13), False), ((2, 6, 4), False)],
)
def test_both_twins_give_the_same_bits(
    isa: str, threads: int, bits: int, scale: float, shape: tuple[int, ...], first: bool
) -> None:
    random = np.random.default_rng(bits)
    images = (random.standard_normal(shape) * 100).astype(np.float32)
    images.reshape(-1)[: EXTREMES.size] = EXTREMES[: images.size]
    output = output_of(bits, scale)
    expected, _ = quantise_images(make_dispatch(Isa.NUMPY, 1), images, first, output)
    found, finite = quantise_images(make_dispatch(isa, threads), images, first, output)
    assert finite and found.dtype == np.int16 and found.shape == expected.shape
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("isa", FUSED_ISAS)
@pytest.mark.parametrize("value", [np.nan, -np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_found_wherever_it_is(isa: str, value: float) -> None:
    dispatch, output = make_dispatch(isa, 2), output_of(12, 1.0)
    for place in (0, 17, 3 * 5 * 5 * 4 - 1):
        images = np.ones((4, 3, 5, 5), np.float32)
        images.reshape(-1)[place] = value
        assert not quantise_images(dispatch, images, True, output)[1]
