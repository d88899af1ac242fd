"""What each kind of step must satisfy by itself: shapes, scales, and the range proof made again from the weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from slalom.errors import ModelError
from slalom.plan import ranges
from slalom.plan.shapes import Geometry, map_geometry, weight_bound
from slalom.plan.steps import (
    ACCUMULATOR_LIMIT,
    Accumulator,
    Activation,
    Add,
    Affine,
    Concatenate,
    Linear,
    Multiply,
    Pad,
    Permute,
    Pointwise,
    Pool,
    Real,
    Reduction,
    Reshape,
    Shape,
    Slice,
    Softmax,
    Step,
    ValueType,
    Window,
)

MAXIMUM_WINDOWS = 65_536
MAXIMUM_OPERATIONS = 64  # as in fused.hpp
MAXIMUM_PADDED_COUNT = 2**31 - 1

Types = Mapping[str, ValueType]
Tensors = Mapping[str, np.ndarray]


def check_step(step: Step, types: Types, tensors: Tensors) -> None:
    """Raises ModelError, naming the step, unless it fits the values and tensors it names.

    `types` holds every earlier value, `tensors` every tensor that the step names.
    """
    _CHECKS[type(step)](step, types, tensors)


def _activation(step: Step, source: str, types: Types) -> Activation:
    kind = types[source]
    if not isinstance(kind, Activation):
        raise ModelError(f"step {step.name!r}: reads {source!r}, which is not an activation")
    return kind


def _expect(step: Step, right: bool, what: str) -> None:
    if not right:
        raise ModelError(f"step {step.name!r}: {what}")


def _check_linear(step: Linear, types: Types, tensors: Tensors) -> None:
    source = _activation(step, step.source, types)
    _expect(step, len(step.maps) > 0, "a linear step has at least one map")
    shape = source.shape
    for linear_map in step.maps:
        weight = tensors[linear_map.weight]
        _expect(step, weight.dtype == np.int8, f"weight {linear_map.weight!r} is not int8")
        try:
            geometry = map_geometry(linear_map, weight.shape, shape)
        except ModelError as error:
            raise ModelError(f"step {step.name!r}: {error}") from error
        _check_size(step, geometry)
        shape = geometry.output_shape
    _expect(step, step.output.shape == shape, f"output shape {step.output.shape} should be {shape}")
    proved = weight_bound(step.maps, tensors) * source.limit
    _expect(step, proved <= ACCUMULATOR_LIMIT, f"range proof fails: sums may reach {proved}, above 2^31 - 1")
    _expect(step, proved <= step.output.bound, f"bound {step.output.bound} is below the proved {proved}")


def _check_size(step: Linear, geometry: Geometry) -> None:
    """What a map takes and gives, padding and the values inside a chain included, can be addressed and allocated."""
    height, width, channels = geometry.input_image
    top, bottom, left, right = geometry.padding
    padded = (height + top + bottom) * (width + left + right) * channels
    largest = max(padded, math.prod(geometry.output_image))
    _expect(step, largest <= MAXIMUM_PADDED_COUNT, f"a map goes over {largest} elements, above 2^31 - 1")


def _check_pointwise(step: Pointwise, types: Types, tensors: Tensors) -> None:
    source = types[step.source]
    _expect(step, not isinstance(source, Real), "a float output cannot be read again")
    _expect(step, step.output.shape == source.shape, f"output shape {step.output.shape} should be {source.shape}")
    first = step.operations[0] if step.operations else None
    _expect(step, isinstance(first, Affine), "the first operation must be affine")
    _expect(step, len(step.operations) <= MAXIMUM_OPERATIONS, f"more than {MAXIMUM_OPERATIONS} operations")
    count = math.prod(source.shape)
    for operation in step.operations:
        if isinstance(operation, Affine):
            _check_affine(step, operation, count, tensors)
        elif isinstance(operation, Add | Multiply):
            operand = _activation(step, operation.operand, types)
            _expect(step, count % math.prod(operand.shape) == 0, f"operand {operation.operand!r} does not divide it")
        else:
            _expect(step, 0 <= operation.parameter <= 1, "a slope is 0..1")
    reach = ranges.pointwise_reach(step, types, tensors)
    _expect(step, reach <= ranges.FLOAT_LIMIT, f"numbers may reach {reach:.1e}, which float32 should not carry")


def _check_affine(step: Pointwise, operation: Affine, count: int, tensors: Tensors) -> None:
    multiplier, bias = tensors[operation.multiplier], tensors[operation.bias]
    for name, tensor in ((operation.multiplier, multiplier), (operation.bias, bias)):
        right = tensor.dtype == np.float32 and tensor.ndim == 1 and tensor.size > 0 and count % tensor.size == 0
        _expect(step, right, f"tensor {name!r} is not float32 of a length that divides {count}")
    _expect(step, multiplier.size == bias.size, "multiplier and bias differ in length")


def _check_pool(step: Pool, types: Types, tensors: Tensors) -> None:
    source = _activation(step, step.source, types)
    _expect(step, len(source.shape) == 3, "pooling needs an image (height, width, channels)")
    height, width, channels = source.shape
    _expect(step, max(len(step.rows), len(step.columns)) <= MAXIMUM_WINDOWS, "too many windows")
    for windows, extent in ((step.rows, height), (step.columns, width)):
        for window in windows:
            _check_window(step, window, extent)
    shape = (len(step.rows), len(step.columns), channels)
    _expect(step, step.output.shape == shape, f"output shape {step.output.shape} should be {shape}")
    if step.reduction is Reduction.MAXIMUM:
        _expect(step, step.output == Activation(shape, source.scale, source.bits), "a maximum keeps scale and bits")
        return
    _expect(step, isinstance(step.output, Accumulator), "a sum gives an accumulator")
    proved = ranges.largest_window(step.rows) * ranges.largest_window(step.columns) * source.limit
    _expect(step, isinstance(step.output, Accumulator) and proved <= step.output.bound, f"sums may reach {proved}")


def _check_window(step: Step, window: Window, extent: int) -> None:
    right = 0 <= window.start < window.stop <= extent and window.step >= 1
    _expect(step, right, f"window {window.start}:{window.stop}:{window.step} does not lie in 0..{extent}")


def _check_concatenate(step: Concatenate, types: Types, tensors: Tensors) -> None:
    _expect(step, len(step.sources) > 0, "nothing to concatenate")
    kinds = [_activation(step, source, types) for source in step.sources]
    _expect(step, 0 <= step.axis < len(step.output.shape), f"axis {step.axis} is out of range")
    total = 0
    for kind in kinds:
        same = (kind.scale, kind.bits) == (step.output.scale, step.output.bits)
        _expect(step, same, "sources differ from the output in scale or bits")
        _expect(step, len(kind.shape) == len(step.output.shape), "sources differ in rank")
        rest = [extent for axis, extent in enumerate(kind.shape) if axis != step.axis]
        mine = [extent for axis, extent in enumerate(step.output.shape) if axis != step.axis]
        _expect(step, rest == mine, "sources differ in shape")
        total += kind.shape[step.axis]
    _expect(step, total == step.output.shape[step.axis], "the joined axis has another length")


def _check_same(step: Step, source: Activation, shape: Shape) -> None:
    expected = Activation(shape, source.scale, source.bits)
    _expect(step, step.output == expected, f"output should be {shape} with the source's scale and bits")


def _check_reshape(step: Reshape, types: Types, tensors: Tensors) -> None:
    source = _activation(step, step.source, types)
    _expect(step, math.prod(source.shape) == math.prod(step.output.shape), "reshape changes the count")
    _check_same(step, source, step.output.shape)


def _check_permute(step: Permute, types: Types, tensors: Tensors) -> None:
    source = _activation(step, step.source, types)
    _expect(step, sorted(step.axes) == list(range(len(source.shape))), f"axes {step.axes} are no permutation")
    _check_same(step, source, tuple(source.shape[axis] for axis in step.axes))


def _check_slice(step: Slice, types: Types, tensors: Tensors) -> None:
    source = _activation(step, step.source, types)
    _expect(step, len(step.windows) == len(source.shape), "a slice names one window an axis")
    for window, extent in zip(step.windows, source.shape, strict=True):
        _check_window(step, window, extent)
    _check_same(step, source, tuple(len(range(item.start, item.stop, item.step)) for item in step.windows))


def _check_pad(step: Pad, types: Types, tensors: Tensors) -> None:
    source = _activation(step, step.source, types)
    right = len(step.before) == len(step.after) == len(source.shape) and min((0, *step.before, *step.after)) == 0
    _expect(step, right, "padding is one non-negative count an axis, before and after")
    pads = zip(step.before, source.shape, step.after, strict=True)
    _check_same(step, source, tuple(before + extent + after for before, extent, after in pads))


def _check_softmax(step: Softmax, types: Types, tensors: Tensors) -> None:
    source = _activation(step, step.source, types)
    _expect(step, len(source.shape) >= 1, "softmax needs an axis")
    _expect(step, step.output.shape == source.shape, f"output shape {step.output.shape} should be {source.shape}")


_CHECKS: Mapping[type, Callable[[Any, Types, Tensors], None]] = {
    Linear: _check_linear,
    Pointwise: _check_pointwise,
    Pool: _check_pool,
    Concatenate: _check_concatenate,
    Reshape: _check_reshape,
    Permute: _check_permute,
    Slice: _check_slice,
    Pad: _check_pad,
    Softmax: _check_softmax,
}
