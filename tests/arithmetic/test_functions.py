"""The float32 functions: how near they are to the real ones, and that their order of operations is as written."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import special

from slalom.arithmetic import functions
from slalom.plan.steps import Function

Doubles = NDArray[np.float64]

SPAN = np.linspace(-100, 100, 400_001, dtype=np.float32)
NEAR = np.geomspace(1e-20, 1, 100_000, dtype=np.float32)
POINTS = np.concatenate([SPAN, NEAR, -NEAR, np.float32([0.0, -0.0, 3e4, -3e4, 1e30, -1e30])])
EXTREMES = np.float32([0.0, -0.0, 1e-30, -1e-30, 86.9, 87.1, -87.1, 3e38, -3e38, 0.625, -0.625])


def hard_sigmoid(x: Doubles) -> Doubles:
    return np.clip(x + 3, 0, 6) / 6


EXACT: dict[Function, Callable[[Doubles], Doubles]] = {
    Function.RELU: lambda x: np.maximum(x, 0),
    Function.RELU6: lambda x: np.clip(x, 0, 6),
    Function.LEAKY_RELU: lambda x: np.where(x > 0, x, x * np.float64(np.float32(0.1))),
    Function.HARD_SIGMOID: hard_sigmoid,
    Function.HARD_SWISH: lambda x: x * hard_sigmoid(x),
    Function.SIGMOID: special.expit,
    Function.SILU: lambda x: x * special.expit(x),
    Function.TANH: np.tanh,
    Function.GELU: lambda x: x * special.ndtr(x),
    Function.GELU_TANH: lambda x: x * special.expit(2 * np.sqrt(2 / np.pi) * (x + 0.044715 * x * x * x)),
}
# The largest error seen, as a part of max(1, |exact|): in single precision half a unit is 6e-8.
BOUNDS = {
    Function.RELU: 0.0,
    Function.RELU6: 0.0,
    Function.LEAKY_RELU: 6e-8,
    Function.HARD_SIGMOID: 1.5e-7,
    Function.HARD_SWISH: 3e-7,
    Function.SIGMOID: 1e-7,
    Function.SILU: 2e-7,
    Function.TANH: 1e-7,
    Function.GELU: 5e-7,
    Function.GELU_TANH: 6e-7,
}


@pytest.mark.parametrize("function", Function)
def test_accuracy(function: Function) -> None:
    values = functions.apply(function, POINTS, 0.1)
    exact = EXACT[function](POINTS.astype(np.float64))
    error = np.abs(values - exact) / np.maximum(1, np.abs(exact))
    assert values.dtype == np.float32
    assert error.max() <= BOUNDS[function]


@pytest.mark.parametrize("function", Function)
def test_extremes_are_finite(function: Function) -> None:
    with np.errstate(all="raise", under="ignore"):
        values = functions.apply(function, EXTREMES[np.abs(EXTREMES) < 1e30], 0.1)
    assert np.isfinite(values).all()


@pytest.mark.parametrize("function", Function)
def test_nothing_is_subnormal(function: Function) -> None:
    values = functions.apply(function, POINTS, 0.1)
    tiny = np.finfo(np.float32).tiny
    assert not ((values != 0) & (np.abs(values) < tiny)).any()


def test_tanh_is_relatively_exact_near_zero() -> None:
    exact = np.tanh(NEAR.astype(np.float64))
    assert (np.abs(functions.tanh(NEAR) - exact) / exact).max() <= 1.5e-7


def test_exp_and_log() -> None:
    inside = SPAN[np.abs(SPAN) <= 87]
    exact = np.exp(inside.astype(np.float64))
    assert (np.abs(functions.exp(inside) - exact) / exact).max() <= 1e-7
    assert functions.exp(np.float32([-1e30, 1e30])).tolist() == functions.exp(np.float32([-87, 87])).tolist()
    positive = np.geomspace(1.2e-38, 3e38, 400_000, dtype=np.float32)
    logarithm = np.log(positive.astype(np.float64))
    assert (np.abs(functions.log(positive) - logarithm) / np.maximum(1, np.abs(logarithm))).max() <= 1e-7


def test_exp_is_the_written_sequence_of_scalar_operations() -> None:
    for x in np.float32([-86.5, -1.3, -0.0, 0.1, 2.5, 40.25]):
        n = np.rint(x * functions.LOG2_E)
        r = (x - n * functions.LN2_HIGH) - n * functions.LN2_LOW
        total = functions.EXP_POLYNOMIAL[0]
        for coefficient in functions.EXP_POLYNOMIAL[1:]:
            total = total * r + coefficient
        expected = ((total * (r * r) + r) + np.float32(1)) * np.float32(2.0 ** int(n))
        assert functions.exp(np.array([x])).tobytes() == np.float32(expected).tobytes()


@pytest.mark.parametrize("count", [1, 2, 3, 10, 1000])
def test_softmax_sums_by_halves(count: int) -> None:
    rows = np.random.default_rng(count).normal(0, 5, (3, count)).astype(np.float32)
    powers = functions.exp(rows - rows.max(axis=1, keepdims=True))
    sums = []
    for power in powers:
        numbers = list(power)
        while len(numbers) & (len(numbers) - 1):
            numbers.append(np.float32(0))
        while len(numbers) > 1:
            half = len(numbers) // 2
            numbers = [a + b for a, b in zip(numbers[:half], numbers[half:], strict=True)]
        sums.append(numbers[0])
    total = np.array(sums, np.float32)[:, None]
    assert np.array_equal(functions.softmax(rows, False), powers / total)
    exact = special.log_softmax(rows.astype(np.float64), axis=1)
    assert np.abs(functions.softmax(rows, True) - exact).max() <= 4e-6
    assert np.abs(functions.softmax(rows, False) - np.exp(exact)).max() <= 2e-7


def test_softmax_keeps_leading_axes() -> None:
    values = np.random.default_rng(0).normal(0, 3, (2, 3, 5)).astype(np.float32)
    rows = functions.softmax(values.reshape(6, 5), False)
    assert np.array_equal(functions.softmax(values, False).reshape(6, 5), rows)
