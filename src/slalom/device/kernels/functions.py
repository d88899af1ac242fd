"""The float32 functions of `arithmetic.functions`, operation by operation, for kernels launched without contraction.

LOAD-BEARING, for every kernel that uses these: it must be launched with `enable_fp_fusion=False`, or a product and a
sum become one rounding; `/` would be an approximation, so divisions are `div_rn`; `-v` would be 0 - v, so it is v * -1.
PTX keeps subnormal numbers unless told to flush them, and Triton does not tell it.
"""

from __future__ import annotations

import triton
import triton.language as tl

from slalom.arithmetic import functions as exact
from slalom.plan.steps import Function

_ROUNDER = tl.constexpr(float(exact.ROUNDER))
_LOG2_E = tl.constexpr(float(exact.LOG2_E))
_LN2_HIGH = tl.constexpr(float(exact.LN2_HIGH))
_LN2_LOW = tl.constexpr(float(exact.LN2_LOW))
_EXP_LIMIT = tl.constexpr(float(exact.EXP_LIMIT))
_EXP = tl.constexpr(tuple(float(c) for c in exact.EXP_POLYNOMIAL))
_TANH_SPLIT = tl.constexpr(float(exact.TANH_SPLIT))
_TANH_LIMIT = tl.constexpr(float(exact.TANH_LIMIT))
_TANH = tl.constexpr(tuple(float(c) for c in exact.TANH_POLYNOMIAL))
_GELU_LIMIT = tl.constexpr(float(exact.GELU_LIMIT))
_SQRT_HALF = tl.constexpr(float(exact.SQRT_HALF))
_ERF_P = tl.constexpr(float(exact.ERF_P))
_ERF = tl.constexpr(tuple(float(c) for c in exact.ERF_POLYNOMIAL))
_GELU_TANH_LIMIT = tl.constexpr(float(exact.GELU_TANH_LIMIT))
_GELU_TANH_CUBIC = tl.constexpr(float(exact.GELU_TANH_CUBIC))
_GELU_TANH_SCALE = tl.constexpr(float(exact.GELU_TANH_SCALE))
_SIXTH = tl.constexpr(float(exact.SIXTH))
_LOG = tl.constexpr(tuple(float(c) for c in exact.LOG_POLYNOMIAL))

CODES = {function: code for code, function in enumerate(Function)}
_RELU = tl.constexpr(CODES[Function.RELU])
_RELU6 = tl.constexpr(CODES[Function.RELU6])
_LEAKY_RELU = tl.constexpr(CODES[Function.LEAKY_RELU])
_HARD_SIGMOID = tl.constexpr(CODES[Function.HARD_SIGMOID])
_HARD_SWISH = tl.constexpr(CODES[Function.HARD_SWISH])
_SIGMOID = tl.constexpr(CODES[Function.SIGMOID])
_SILU = tl.constexpr(CODES[Function.SILU])
_TANH_FUNCTION = tl.constexpr(CODES[Function.TANH])
_GELU = tl.constexpr(CODES[Function.GELU])
_GELU_TANH = tl.constexpr(CODES[Function.GELU_TANH])


@triton.jit
def apply_function(v, parameter, CODE: tl.constexpr):
    """function(v), elementwise; `parameter` is the slope of leaky_relu."""
    if CODE == _RELU:
        return relu(v)
    elif CODE == _RELU6:
        return minimum(relu(v), 6.0)
    elif CODE == _LEAKY_RELU:
        return tl.where(v > 0.0, v, v * parameter)
    elif CODE == _HARD_SIGMOID:
        return hard_sigmoid(v)
    elif CODE == _HARD_SWISH:
        return v * hard_sigmoid(v)
    elif CODE == _SIGMOID:
        return sigmoid(v)
    elif CODE == _SILU:
        return v * sigmoid(v)
    elif CODE == _TANH_FUNCTION:
        return tanh(v)
    elif CODE == _GELU:
        return gelu(v)
    else:
        tl.static_assert(CODE == _GELU_TANH)
        return gelu_tanh(v)


@triton.jit
def requantise(v, inverse, limit):
    """To an activation: v * inverse, clamped, rounded half to even. NaN gives the limit."""
    scaled = clamp(v * inverse, limit * -1.0, limit)
    return ((scaled + _ROUNDER) - _ROUNDER).to(tl.int16)  # |scaled| <= 16383 < 2^22


@triton.jit
def exp(v):
    x = clamp(v, -_EXP_LIMIT, _EXP_LIMIT)
    n = (x * _LOG2_E + _ROUNDER) - _ROUNDER  # |n| <= 126
    r = (x - n * _LN2_HIGH) - n * _LN2_LOW
    tail = horner(_EXP, 6, r) * (r * r)
    power = ((n.to(tl.int32) + 127) << 23).to(tl.float32, bitcast=True)
    return ((tail + r) + 1.0) * power


@triton.jit
def log(v):
    bits = v.to(tl.int32, bitcast=True)
    mantissa = ((bits & 0x007FFFFF) | 0x3F000000).to(tl.float32, bitcast=True)
    exponent = ((bits >> 23) - 126).to(tl.float32)
    low = mantissa < _SQRT_HALF
    x = tl.where(low, mantissa + mantissa, mantissa) - 1.0
    n = tl.where(low, exponent - 1.0, exponent)
    z = x * x
    tail = (horner(_LOG, 9, x) * x * z + n * _LN2_LOW) - z * 0.5
    return (x + tail) + n * _LN2_HIGH


@triton.jit
def relu(v):
    return tl.where(v > 0.0, v, 0.0)


@triton.jit
def hard_sigmoid(v):
    return clamp(v + 3.0, 0.0, 6.0) * _SIXTH


@triton.jit
def sigmoid(v):
    return reciprocal(exp(v * -1.0) + 1.0)


@triton.jit
def tanh(v):
    a = minimum(tl.abs(v), _TANH_LIMIT)
    z = a * a
    small = horner(_TANH, 5, z) * z * a + a
    large = 1.0 - reciprocal_of(2.0, exp(a + a) + 1.0)
    magnitude = tl.where(a < _TANH_SPLIT, small, large)
    return tl.where(v < 0.0, magnitude * -1.0, magnitude)


@triton.jit
def gelu(v):
    x = minimum(tl.abs(v), _GELU_LIMIT) * _SQRT_HALF
    t = reciprocal(x * _ERF_P + 1.0)
    half = (horner(_ERF, 5, t) * t * exp((x * x) * -1.0)) * 0.5
    return v * tl.where(v < 0.0, half, 1.0 - half)


@triton.jit
def gelu_tanh(v):
    x = clamp(v, -_GELU_TANH_LIMIT, _GELU_TANH_LIMIT)
    cubic = (x * x) * x * _GELU_TANH_CUBIC
    return v * sigmoid((x + cubic) * _GELU_TANH_SCALE)


@triton.jit
def horner(COEFFICIENTS: tl.constexpr, COUNT: tl.constexpr, x):
    """((c0 * x + c1) * x + c2) ..., every product and every sum rounded."""
    total = x * COEFFICIENTS[0] + COEFFICIENTS[1]
    for position in tl.static_range(2, COUNT):
        total = total * x + COEFFICIENTS[position]
    return total


@triton.jit
def reciprocal(v):
    return reciprocal_of(1.0, v)


@triton.jit
def reciprocal_of(numerator, v):
    """numerator / v, rounded to nearest."""
    return tl.div_rn(tl.zeros_like(v) + numerator, v)


@triton.jit
def minimum(v, limit):
    return tl.where(v < limit, v, limit)


@triton.jit
def clamp(v, low, high):
    bounded = minimum(v, high)
    return tl.where(bounded > low, bounded, low)
