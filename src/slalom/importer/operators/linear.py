"""Convolutions, dense layers and products with constant matrices."""

from __future__ import annotations

import numpy as np

from slalom.errors import ModelError
from slalom.importer.builder import IMAGE_ORDER, Handle
from slalom.importer.call import Call, Lowering
from slalom.importer.graph import Linear, Weights
from slalom.plan.steps import Convolution, Dense


def lower_convolution(call: Call) -> Handle:
    """conv2d: weights (out, in / groups, rows, columns), padding as integers or "same" or "valid"."""
    image = call.builder.arrange(call.handle("input"), IMAGE_ORDER)
    weight = call.weight("weight", (2, 3, 1, 0))
    return _convolve(call, image, weight, Handle("", call.shape, IMAGE_ORDER))


def lower_sequence_convolution(call: Call) -> Handle:
    """conv1d, as the convolution of an image of one column."""
    sequence = call.builder.arrange(call.handle("input"), (1, 0))
    image = call.builder.view(sequence, Handle("", (*sequence.shape, 1), IMAGE_ORDER))
    like = Handle("", (*call.shape, 1), IMAGE_ORDER)
    convolved = _convolve(call, image, call.weight("weight", (2, 1, 0))[:, None], like)
    return call.builder.view(convolved, Handle("", call.shape, (1, 0)))


def lower_linear(call: Call) -> Handle:
    """linear: weights (out, in)."""
    return _contract(call, call.handle("input"), call.weight("weight", (1, 0)), call["bias"] is not None)


def lower_matmul(call: Call) -> Handle:
    """A value times a constant matrix (in, out)."""
    name = "mat2" if "mat2" in call.arguments else "other"
    first = "input" if "input" in call.arguments else "self"
    return _contract(call, call.handle(first), call.weight(name, (0, 1)), has_bias=False)


def lower_addmm(call: Call) -> Handle:
    """beta * bias + alpha * (a value times a constant matrix)."""
    weight = call.weight("mat2", (0, 1)) * np.float32(call["alpha"])
    product = _contract(call, call.handle("mat1"), weight, has_bias=False)
    bias = call.constant("self") * call["beta"]
    return call.builder.affine(product, np.ones(1), bias[0] if bias.ndim == 2 and len(bias) == 1 else bias)


def _convolve(call: Call, image: Handle, weight: Weights, like: Handle) -> Handle:
    stride, dilation = _along(call, "stride"), _along(call, "dilation")
    spans = [dilation[axis] * (weight.shape[axis] - 1) for axis in (0, 1)]
    padding = _padding(call, spans)
    linear_map = Convolution("", stride, padding, dilation, call["groups"])
    bias = call.optional_constant("bias", np.zeros(weight.shape[3]))
    operation = Linear(linear_map, call.builder.unique(call.builder.label), weight, bias)
    return call.builder.append(operation, [image], like)


def _along(call: Call, name: str) -> tuple[int, int]:
    """Stride or dilation along rows and columns; a sequence's one number is for its rows."""
    numbers = call[name]
    if len(call.handle("input").shape) == 2:
        return int(numbers[0]), 1
    return call.pair(name)


def _padding(call: Call, spans: list[int]) -> tuple[int, int, int, int]:
    padding = call["padding"]
    if padding == "valid":
        return (0, 0, 0, 0)
    if padding == "same":  # torch puts an odd zero below and to the right
        rows, columns = spans
        return (rows // 2, rows - rows // 2, columns // 2, columns - columns // 2)
    if isinstance(padding, str):
        raise ModelError(f"unknown padding {padding!r}")
    if len(call.handle("input").shape) == 2:
        return (int(padding[0]), int(padding[0]), 0, 0)
    rows, columns = call.pair("padding")
    return (rows, rows, columns, columns)


def _contract(call: Call, source: Handle, weight: Weights, has_bias: bool) -> Handle:
    """The last axis of the source times a matrix (in, out)."""
    if not source.shape:
        raise ModelError("a product needs an axis beside the batch")
    last = len(source.shape) - 1
    if source.order[-1] != last:
        source = call.builder.arrange(source, (*(axis for axis in source.order if axis != last), last))
    bias = call.constant("bias") if has_bias else np.zeros(weight.shape[1])
    operation = Linear(Dense(""), call.builder.unique(call.builder.label), weight, bias)
    return call.builder.append(operation, [source], Handle("", call.shape, source.order))


OPERATORS: dict[str, Lowering] = {
    "aten.conv2d.default": lower_convolution,
    "aten.conv2d.padding": lower_convolution,
    "aten.conv1d.default": lower_sequence_convolution,
    "aten.conv1d.padding": lower_sequence_convolution,
    "aten.linear.default": lower_linear,
    "aten.matmul.default": lower_matmul,
    "aten.mm.default": lower_matmul,
    "aten.addmm.default": lower_addmm,
}
