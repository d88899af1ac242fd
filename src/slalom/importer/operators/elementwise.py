"""Functions, batch norm, and sums and products of values and constants."""

from __future__ import annotations

import numpy as np

from slalom.errors import ModelError
from slalom.importer.builder import Handle
from slalom.importer.call import Call, Lowering, Result, as_constant, item_constant
from slalom.importer.graph import Add, Affine, Apply, Floats, Multiply
from slalom.plan.steps import Function

_ONE, _ZERO = np.ones(1), np.zeros(1)


def lower_function(function: Function) -> Lowering:
    """A function without parameters."""

    def lower(call: Call) -> Handle:
        source = call.handle("self")
        return call.builder.append(Apply(function), [source], source)

    return lower


def lower_gelu(call: Call) -> Handle:
    """gelu by erf or by tanh."""
    source = call.handle("self")
    function = Function.GELU_TANH if call["approximate"] == "tanh" else Function.GELU
    return call.builder.append(Apply(function), [source], source)


def lower_leaky_relu(call: Call) -> Handle:
    """leaky_relu with a slope of 0..1."""
    source, slope = call.handle("self"), float(call["negative_slope"])
    if not 0 <= slope <= 1:
        raise ModelError(f"a negative slope of {slope} is not within 0..1")
    return call.builder.append(Apply(Function.LEAKY_RELU, float(np.float32(slope))), [source], source)


def lower_clamp(call: Call) -> Handle:
    """clamp and hardtanh, from relu and relu6: clamp(v, a, b) = a + (b-a)/6 * relu6((v-a) * 6/(b-a))."""
    source = call.handle("self")
    low = _bound(call, "min", "min_val")
    high = _bound(call, "max", "max_val")
    if low is None:
        return source if high is None else _ramp(call, source, Function.RELU, -1.0, high)
    if high is None:
        return _ramp(call, source, Function.RELU, 1.0, low)
    if not low < high:
        raise ModelError(f"clamp between {low} and {high} is constant")
    return _ramp(call, source, Function.RELU6, (high - low) / 6, low)


def lower_batch_norm(call: Call) -> Result:
    """Batch norm with running statistics, as one affine map a channel."""
    source = call.handle("input")
    if call.arguments.get("training") or call["running_mean"] is None or call["running_var"] is None:
        raise ModelError("batch norm without running statistics depends on the batch")
    mean, variance = call.constant("running_mean"), call.constant("running_var")
    multiplier = call.optional_constant("weight", np.ones_like(mean)) / np.sqrt(variance + call["eps"])
    bias = call.optional_constant("bias", np.zeros_like(mean)) - mean * multiplier
    column = (-1,) + (1,) * (len(source.shape) - 1)
    return (call.builder.affine(source, multiplier.reshape(column), bias.reshape(column)),)


def lower_add(call: Call) -> Handle:
    """self + alpha * other."""
    return _add(call, call["self"], call["other"], float(call["alpha"]))


def lower_subtract(call: Call) -> Handle:
    """self - alpha * other."""
    return _add(call, call["self"], call["other"], -float(call["alpha"]))


def lower_reverse_subtract(call: Call) -> Handle:
    """other - alpha * self."""
    return _add(call, call["other"], call["self"], -float(call["alpha"]))


def lower_multiply(call: Call) -> Handle:
    """self * other."""
    first, second = call["self"], call["other"]
    if isinstance(first, Handle) and isinstance(second, Handle):
        return call.builder.join(Multiply(), first, second)
    handle, constant = (first, second) if isinstance(first, Handle) else (second, first)
    return call.builder.affine(_widen(call, handle), _constant(call, constant), _ZERO)


def lower_divide(call: Call) -> Handle:
    """self / a constant."""
    divisor = _constant(call, call["other"])
    if (divisor == 0).any():
        raise ModelError("it divides by zero")
    return call.builder.affine(_widen(call, call.handle("self")), 1 / divisor, _ZERO)


def lower_negate(call: Call) -> Handle:
    """-self."""
    return call.builder.affine(call.handle("self"), -_ONE, _ZERO)


def _add(call: Call, first: Handle | Floats, second: Handle | Floats, alpha: float) -> Handle:
    builder = call.builder
    if not isinstance(first, Handle):
        handle = second
        if not isinstance(handle, Handle):
            raise ModelError("both operands are constants")
        return builder.affine(_widen(call, handle), np.full(1, alpha), _constant(call, first))
    if not isinstance(second, Handle):
        return builder.affine(_widen(call, first), _ONE, _constant(call, second) * alpha)
    if alpha == 1.0:
        return builder.join(Add(), first, second)
    if alpha == 0.0:
        return _widen(call, first)
    # first + alpha * second = alpha * (first / alpha + second): no operation carries a sign of its own
    scaled = builder.affine(first, np.full(1, 1 / alpha), _ZERO, gain=abs(1 / alpha))
    total = builder.join(Add(), scaled, second)
    return builder.affine(total, np.full(1, alpha), _ZERO)


def _widen(call: Call, handle: Handle) -> Handle:
    """The handle with leading axes of one, so that it has the rank of the result."""
    rank = len(call.shape)
    return call.builder.reshape(handle, (1,) * (rank - len(handle.shape)) + handle.shape)


def _constant(call: Call, value: object) -> Floats:
    return item_constant(as_constant(value, "other"), len(call.shape))


def _bound(call: Call, *names: str) -> float | None:
    """The argument of clamp under either of its names."""
    value = next((call.arguments[name] for name in names if call.arguments.get(name) is not None), None)
    return None if value is None else float(value)


def _ramp(call: Call, source: Handle, function: Function, slope: float, origin: float) -> Handle:
    """origin + slope * function((v - origin) / slope)."""
    builder = call.builder
    if origin == 0.0 and slope == 1.0:
        return builder.append(Apply(function), [source], source)
    moved = builder.append(Affine(np.full(1, 1 / slope), np.full(1, -origin / slope)), [source], source)
    bent = builder.append(Apply(function), [moved], moved)
    return builder.append(Affine(np.full(1, slope), np.full(1, origin)), [bent], bent)


OPERATORS: dict[str, Lowering] = {
    "aten.relu.default": lower_function(Function.RELU),
    "aten.relu6.default": lower_function(Function.RELU6),
    "aten.hardswish.default": lower_function(Function.HARD_SWISH),
    "aten.hardsigmoid.default": lower_function(Function.HARD_SIGMOID),
    "aten.silu.default": lower_function(Function.SILU),
    "aten.sigmoid.default": lower_function(Function.SIGMOID),
    "aten.tanh.default": lower_function(Function.TANH),
    "aten.gelu.default": lower_gelu,
    "aten.leaky_relu.default": lower_leaky_relu,
    "aten.hardtanh.default": lower_clamp,
    "aten.clamp.default": lower_clamp,
    "aten.clamp_min.default": lower_clamp,
    "aten.clamp_max.default": lower_clamp,
    "aten.batch_norm.default": lambda call: lower_batch_norm(call)[0],  # type: ignore[index]
    "aten._native_batch_norm_legit_no_training.default": lower_batch_norm,
    "aten.add.Tensor": lower_add,
    "aten.add.Scalar": lower_add,
    "aten.sub.Tensor": lower_subtract,
    "aten.sub.Scalar": lower_subtract,
    "aten.rsub.Scalar": lower_reverse_subtract,
    "aten.rsub.Tensor": lower_reverse_subtract,
    "aten.mul.Tensor": lower_multiply,
    "aten.mul.Scalar": lower_multiply,
    "aten.div.Tensor": lower_divide,
    "aten.div.Scalar": lower_divide,
    "aten.neg.default": lower_negate,
}
