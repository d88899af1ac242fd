"""The float32 functions: bit-equal to the product's, near the true functions, and exact where the value is known."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from reference import functions as reference
from slalom.arithmetic import functions as product
from slalom.plan.steps import Function

Floats = NDArray[np.float32]


def arguments() -> Floats:
    """Every scale of finite float32 that the epilogue may meet, both signs, and the seams of the formulas."""
    random = np.random.default_rng(7)
    exponents = random.uniform(-40, 30, 200_000)
    wide = np.exp2(exponents) * random.choice([-1.0, 1.0], exponents.size)
    seams = np.float32([0, 0.5, 0.625, 1, 3, 6, 11, 12, 13, 40, 44, 87, 87.5, 88, 1e4, 1e30])
    around = np.concatenate([np.nextafter(seams, np.float32(s)) for s in (-np.inf, np.inf)] + [seams])
    return np.concatenate([wide, np.linspace(-100, 100, 100_001), around, -around]).astype(np.float32)


def bits(v: Floats) -> NDArray[np.uint32]:
    return np.ascontiguousarray(v, dtype=np.float32).view(np.uint32)


@pytest.mark.parametrize("function", list(Function))
def test_bit_equal_to_the_product(function: Function) -> None:
    v = arguments()
    ours, theirs = reference.apply_function(function, v, 0.1), product.apply(function, v, 0.1)
    assert ours.dtype == theirs.dtype == np.float32
    assert np.array_equal(bits(ours), bits(theirs))


@pytest.mark.parametrize("logarithm", [False, True])
@pytest.mark.parametrize("count", [1, 2, 3, 5, 8, 10, 197, 1000])
def test_softmax_bit_equal_to_the_product(count: int, logarithm: bool) -> None:
    random = np.random.default_rng(count)
    for spread in (0.01, 1, 10, 200):
        v = (random.standard_normal((3, 2, count)) * spread).astype(np.float32)
        assert np.array_equal(bits(reference.softmax(v, logarithm)), bits(product.softmax(v, logarithm)))


ACCURACY: list[tuple[Function, Callable[[float], float], float]] = [
    (Function.SIGMOID, lambda v: 1 / (1 + math.exp(-v)), 2e-7),
    (Function.SILU, lambda v: v / (1 + math.exp(-v)), 1e-5),
    (Function.TANH, math.tanh, 2e-7),
    (Function.GELU, lambda v: v * (1 + math.erf(v / math.sqrt(2))) / 2, 1e-5),
    (
        Function.GELU_TANH,
        lambda v: v * (1 + math.tanh(math.sqrt(2 / math.pi) * (v + 0.044715 * v**3))) / 2,
        1e-5,
    ),
]


@pytest.mark.parametrize(("function", "true", "most"), ACCURACY)
def test_near_the_true_function(function: Function, true: Callable[[float], float], most: float) -> None:
    v = np.linspace(-30, 30, 6001).astype(np.float32)
    wanted = np.array([true(float(one)) for one in v])
    assert np.abs(reference.apply_function(function, v, 0) - wanted).max() <= most


def test_known_values() -> None:
    v = np.float32([-7, -3, -1, -0.0, 0, 0.5, 3, 7])
    known = {
        Function.RELU: [0, 0, 0, 0, 0, 0.5, 3, 7],
        Function.RELU6: [0, 0, 0, 0, 0, 0.5, 3, 6],
        Function.LEAKY_RELU: [-1.75, -0.75, -0.25, -0.0, 0, 0.5, 3, 7],
        Function.HARD_SIGMOID: [0, 0, 2 * np.float32(1 / 6), 0.5, 0.5, 3.5 * np.float32(1 / 6), 1, 1],
        Function.HARD_SWISH: [-0.0, -0.0, -2 * np.float32(1 / 6), -0.0, 0, 1.75 * np.float32(1 / 6), 3, 7],
    }
    for function, wanted in known.items():
        assert np.array_equal(bits(reference.apply_function(function, v, 0.25)), bits(np.float32(wanted))), function


def test_softmax_of_equal_numbers_is_uniform() -> None:
    assert (reference.softmax(np.full((1, 4), np.float32(3)), False) == 0.25).all()


def test_sum_is_taken_by_halves() -> None:
    big = np.float32(2**24)  # big + 1 rounds to big, so the order of additions shows
    assert reference.halving_sum(np.float32([big, 1, 1, 1])) == big + 2
    assert reference.halving_sum(np.float32([1, 1, big])) == (1 + big) + 1
    assert reference.halving_sum(np.float32([big, 1, -big, 1])) == 2
