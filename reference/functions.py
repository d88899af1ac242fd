"""Float32 functions of one number: each operation is rounded on its own, in the order written.

Sources: exp, tanh, log: Cephes (Moshier, single precision); the erf in gelu: Abramowitz and Stegun, formula 7.1.26.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from slalom.plan.steps import Function

Floats = NDArray[np.float32]
f32 = np.float32

LOG2_E = f32(1.44269504088896341)
LN2_HIGH = f32(0.693359375)
LN2_LOW = f32(-2.12194440e-4)
SQRT_HALF = f32(0.70710678118654752)
EXP = (1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1)
TANH = (-5.70498872745e-3, 2.06390887954e-2, -5.37397155531e-2, 1.33314422036e-1, -3.33332819422e-1)
ERF = (1.061405429, -1.453152027, 1.421413741, -0.284496736, 0.254829592)
LOG = (
    7.0376836292e-2,
    -1.1514610310e-1,
    1.1676998740e-1,
    -1.2420140846e-1,
    1.4249322787e-1,
    -1.6668057665e-1,
    2.0000714765e-1,
    -2.4999993993e-1,
    3.3333331174e-1,
)


def apply_function(function: Function, v: Floats, parameter: float) -> Floats:
    """function(v), elementwise, for finite float32; `parameter` is the negative slope of leaky_relu."""
    if function is Function.LEAKY_RELU:
        return np.where(v > 0, v, v * f32(parameter))
    return FUNCTIONS[function](v)


def relu(v: Floats) -> Floats:
    """v where positive, else +0."""
    return np.where(v > 0, v, f32(0))


def relu6(v: Floats) -> Floats:
    """relu, at most 6."""
    return at_most(relu(v), 6)


def hard_sigmoid(v: Floats) -> Floats:
    """v + 3, held to 0..6, times the float32 nearest to 1/6."""
    return at_least(at_most(v + f32(3), 6), 0) * f32(1 / 6)


def hard_swish(v: Floats) -> Floats:
    """v * hard_sigmoid(v)."""
    return v * hard_sigmoid(v)


def exp(v: Floats) -> Floats:
    """e**v for v held to -87..87: 2**n * (1 + r + r**2 * polynomial(r)) with v = n * ln 2 + r."""
    x = at_least(at_most(v, 87), -87)
    n = np.rint(x * LOG2_E)
    r = x - n * LN2_HIGH
    r = r - n * LN2_LOW
    polynomial = horner(EXP, r) * (r * r)
    power: Floats = np.ldexp(f32(1), n.astype(np.int32))  # |n| <= 126: a normal number, exact
    total: Floats = polynomial + r + f32(1)
    return total * power


def sigmoid(v: Floats) -> Floats:
    """1 / (1 + exp(-v))."""
    return f32(1) / (f32(1) + exp(-v))


def silu(v: Floats) -> Floats:
    """v * sigmoid(v)."""
    return v * sigmoid(v)


def tanh(v: Floats) -> Floats:
    """The odd polynomial where |v| < 0.625, else 1 - 2 / (exp(2|v|) + 1) with v's sign, |v| held to 40."""
    a = at_most(np.abs(v), 40)
    square = a * a
    near = horner(TANH, square) * square * a + a
    far = f32(1) - f32(2) / (exp(f32(2) * a) + f32(1))
    magnitude = np.where(a < f32(0.625), near, far)
    return np.where(v < 0, -magnitude, magnitude)


def gelu(v: Floats) -> Floats:
    """v * Phi(v): half of erfc(|v| / sqrt(2)) where v is negative, else one minus that half; |v| held to 12.75."""
    x = at_most(np.abs(v), 12.75) * SQRT_HALF
    t = f32(1) / (f32(1) + f32(0.3275911) * x)
    erfc = horner(ERF, t) * t * exp(-(x * x))
    half = erfc * f32(0.5)
    return v * np.where(v < 0, half, f32(1) - half)


def gelu_tanh(v: Floats) -> Floats:
    """v * sigmoid(2 * sqrt(2/pi) * (x + 0.044715 x**3)), x being v held to -11..11."""
    x = at_least(at_most(v, 11), -11)
    cubic = x * x * x * f32(0.044715)
    return v * sigmoid((x + cubic) * f32(1.5957691216057308))


def log(v: Floats) -> Floats:
    """The natural logarithm of positive normal numbers: v = 2**n * (1 + x), 1 + x in [sqrt(1/2), sqrt(2))."""
    mantissa, exponent = np.frexp(v)  # 0.5 <= mantissa < 1, both exact
    low = mantissa < SQRT_HALF
    x: Floats = np.where(low, f32(2) * mantissa, mantissa) - f32(1)
    n: Floats = np.where(low, exponent - 1, exponent).astype(np.float32)
    square = x * x
    tail = horner(LOG, x) * x * square
    tail = tail + LN2_LOW * n
    tail = tail - f32(0.5) * square
    total: Floats = x + tail
    return total + LN2_HIGH * n


def softmax(v: Floats, logarithm: bool) -> Floats:
    """exp(v - max) / sum along the last axis, or (v - max) - log(sum)."""
    shifted = v - v.max(axis=-1, keepdims=True)
    powers = exp(shifted)
    total = halving_sum(powers)[..., np.newaxis]
    return shifted - log(total) if logarithm else powers / total


def halving_sum(v: Floats) -> Floats:
    """The sum along the last axis: zeros up to a power of two, then half added to half until one is left."""
    columns: list[Floats] = list(np.moveaxis(v, -1, 0))
    while len(columns) & (len(columns) - 1):
        columns.append(np.zeros_like(columns[0]))
    while len(columns) > 1:
        middle = len(columns) // 2
        columns = [first + second for first, second in zip(columns[:middle], columns[middle:], strict=True)]
    return columns[0]


def horner(coefficients: Sequence[float], x: Floats) -> Floats:
    """((c0 * x + c1) * x + c2) ..., every product and every sum rounded."""
    total: Floats = np.full_like(x, coefficients[0])
    for coefficient in coefficients[1:]:
        product = total * x
        total = product + f32(coefficient)
    return total


def at_most(v: Floats, limit: float) -> Floats:
    """v < limit ? v : limit."""
    return np.where(v < f32(limit), v, f32(limit))


def at_least(v: Floats, limit: float) -> Floats:
    """v > limit ? v : limit."""
    return np.where(v > f32(limit), v, f32(limit))


FUNCTIONS: dict[Function, Callable[[Floats], Floats]] = {
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
