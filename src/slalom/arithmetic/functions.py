"""The float32 functions of the epilogue, every rounding fixed.

A function is a fixed sequence of IEEE single operations (+ - * /, compare and select, round half to even, an
exponent built from bits), never a math library's, never fused, and without a branch on the data: so NumPy, the
compiled kernels and the device mirror give the same bits. Inputs are finite; arguments are clamped so that no
intermediate is infinite, NaN or subnormal for finite inputs. `min` and `max` are selects: `a < b ? a : b`.

Polynomials of exp, tanh and log: Cephes (Moshier, single precision). erf: Abramowitz and Stegun 7.1.26.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np
from numpy.typing import NDArray

from slalom.plan.steps import Function

Floats = NDArray[np.float32]

_f = np.float32

ROUNDER: Final = _f(12582912.0)  # 1.5 * 2**23: adding and subtracting it rounds |x| < 2**22 half to even
LOG2_E: Final = _f(1.44269504088896341)
LN2_HIGH: Final = _f(0.693359375)  # 9 bits: n * LN2_HIGH is exact for |n| < 2**15
LN2_LOW: Final = _f(-2.12194440e-4)
EXP_LIMIT: Final = _f(87.0)  # exp(-87) = 1.6e-38 is still normal, exp(87) = 6.1e37 finite
EXP_POLYNOMIAL: Final = tuple(
    _f(c)
    for c in (1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1)
)
TANH_SPLIT: Final = _f(0.625)
TANH_LIMIT: Final = _f(40.0)
TANH_POLYNOMIAL: Final = tuple(
    _f(c) for c in (-5.70498872745e-3, 2.06390887954e-2, -5.37397155531e-2, 1.33314422036e-1, -3.33332819422e-1)
)
GELU_LIMIT: Final = _f(12.75)  # erfc(12.75 / sqrt(2)) = 3e-37, and its half is normal still
SQRT_HALF: Final = _f(0.70710678118654752)
ERF_P: Final = _f(0.3275911)
ERF_POLYNOMIAL: Final = tuple(_f(c) for c in (1.061405429, -1.453152027, 1.421413741, -0.284496736, 0.254829592))
GELU_TANH_LIMIT: Final = _f(11.0)  # the sigmoid's argument is 112 there, beyond EXP_LIMIT
GELU_TANH_CUBIC: Final = _f(0.044715)
GELU_TANH_SCALE: Final = _f(1.5957691216057308)  # 2 * sqrt(2 / pi)
SIXTH: Final = _f(0.16666666666666667)
LOG_POLYNOMIAL: Final = tuple(
    _f(c)
    for c in (
        *(7.0376836292e-2, -1.1514610310e-1, 1.1676998740e-1, -1.2420140846e-1, 1.4249322787e-1),
        *(-1.6668057665e-1, 2.0000714765e-1, -2.4999993993e-1, 3.3333331174e-1),
    )
)


def apply(function: Function, values: Floats, parameter: float = 0.0) -> Floats:
    """function(values), elementwise, float32; `parameter` is the slope of leaky_relu."""
    if function is Function.LEAKY_RELU:
        return leaky_relu(values, _f(parameter))
    return _FUNCTIONS[function](values)


def exp(values: Floats) -> Floats:
    """e**v, with v clamped to -87..87."""
    x = _clamp(values, -EXP_LIMIT, EXP_LIMIT)
    n = (x * LOG2_E + ROUNDER) - ROUNDER  # |n| <= 126
    r = (x - n * LN2_HIGH) - n * LN2_LOW  # |r| <= 0.35
    tail = _horner(EXP_POLYNOMIAL, r) * (r * r)
    power = ((n.astype(np.int32) + np.int32(127)) << np.int32(23)).view(np.float32)  # 2**n, 1 <= n + 127 <= 253
    result: Floats = ((tail + r) + _f(1)) * power
    return result


def sigmoid(values: Floats) -> Floats:
    """1 / (1 + exp(-v))."""
    return _f(1) / (_f(1) + exp(-values))


def silu(values: Floats) -> Floats:
    """v * sigmoid(v)."""
    return values * sigmoid(values)


def tanh(values: Floats) -> Floats:
    """The hyperbolic tangent: a polynomial below 0.625, else 1 - 2 / (exp(2|v|) + 1); both are computed."""
    a = _minimum(np.abs(values), TANH_LIMIT)
    z = a * a
    small = _horner(TANH_POLYNOMIAL, z) * z * a + a
    large = _f(1) - _f(2) / (exp(a + a) + _f(1))
    magnitude = np.where(a < TANH_SPLIT, small, large)
    return np.where(values < _f(0), -magnitude, magnitude)


def gelu(values: Floats) -> Floats:
    """v * Phi(v), Phi the normal distribution function by the erf of Abramowitz and Stegun 7.1.26."""
    a = _minimum(np.abs(values), GELU_LIMIT)
    x = a * SQRT_HALF
    t = _f(1) / (_f(1) + ERF_P * x)
    tail = _horner(ERF_POLYNOMIAL, t) * t * exp(-(x * x))  # erfc(|v| / sqrt(2))
    half = tail * _f(0.5)
    return values * np.where(values < _f(0), half, _f(1) - half)


def gelu_tanh(values: Floats) -> Floats:
    """v * (1 + tanh(sqrt(2/pi) * (v + 0.044715 v**3))) / 2, which is v * sigmoid of twice that argument."""
    x = _clamp(values, -GELU_TANH_LIMIT, GELU_TANH_LIMIT)
    cubic = (x * x) * x * GELU_TANH_CUBIC
    return values * sigmoid((x + cubic) * GELU_TANH_SCALE)


def relu(values: Floats) -> Floats:
    """v > 0 ? v : 0."""
    return np.where(values > _f(0), values, _f(0))


def relu6(values: Floats) -> Floats:
    """relu, then min with 6."""
    return _minimum(relu(values), _f(6))


def leaky_relu(values: Floats, slope: np.float32) -> Floats:
    """v > 0 ? v : v * slope."""
    return np.where(values > _f(0), values, values * slope)


def hard_sigmoid(values: Floats) -> Floats:
    """clamp(v + 3, 0, 6) * (1/6 in float32)."""
    return _clamp(values + _f(3), _f(0), _f(6)) * SIXTH


def hard_swish(values: Floats) -> Floats:
    """v * hard_sigmoid(v)."""
    return values * hard_sigmoid(values)


def log(values: Floats) -> Floats:
    """The natural logarithm of positive normal numbers."""
    bits = values.view(np.int32)
    mantissa = ((bits & np.int32(0x007FFFFF)) | np.int32(0x3F000000)).view(np.float32)  # 0.5 <= mantissa < 1
    exponent = ((bits >> np.int32(23)) - np.int32(126)).astype(np.float32)
    low = mantissa < SQRT_HALF
    x: Floats = np.where(low, mantissa + mantissa, mantissa) - _f(1)
    n: Floats = np.where(low, exponent - _f(1), exponent)
    z = x * x
    tail = _horner(LOG_POLYNOMIAL, x) * x * z + n * LN2_LOW - z * _f(0.5)
    result: Floats = (x + tail) + n * LN2_HIGH
    return result


def softmax(values: Floats, logarithm: bool) -> Floats:
    """exp(v - max) / sum over the last axis, or its logarithm (v - max) - log(sum).

    The row of exponentials is padded with zeros to a power of two and summed by adding its second half to its
    first until one number is left.
    """
    shifted: Floats = values - np.max(values, axis=-1, keepdims=True)
    powers = exp(shifted)
    total = _halving_sum(powers)
    return shifted - log(total) if logarithm else powers / total


def _halving_sum(rows: Floats) -> Floats:
    """The sum over the last axis, which keeps length 1."""
    count = rows.shape[-1]
    width = 1 << (count - 1).bit_length()
    padded: Floats = np.zeros((*rows.shape[:-1], width), np.float32)
    padded[..., :count] = rows
    while width > 1:
        width //= 2
        padded = padded[..., :width] + padded[..., width:]
    return padded


def _horner(coefficients: tuple[np.float32, ...], x: Floats) -> Floats:
    """((c0 * x + c1) * x + c2) ..."""
    total: Floats = x * coefficients[0] + coefficients[1]
    for coefficient in coefficients[2:]:
        total = total * x + coefficient
    return total


def _minimum(values: Floats, limit: np.float32) -> Floats:
    return np.where(values < limit, values, limit)


def _clamp(values: Floats, low: np.float32, high: np.float32) -> Floats:
    bounded = _minimum(values, high)
    return np.where(bounded > low, bounded, low)


_FUNCTIONS: Final[dict[Function, Callable[[Floats], Floats]]] = {
    Function.RELU: relu,
    Function.RELU6: relu6,
    Function.HARD_SIGMOID: hard_sigmoid,
    Function.HARD_SWISH: hard_swish,
    Function.SIGMOID: sigmoid,
    Function.SILU: silu,
    Function.TANH: tanh,
    Function.GELU: gelu,
    Function.GELU_TANH: gelu_tanh,
}
