"""Everything a plan must satisfy before either side acts on it; each refusal is a ModelError that names the step.

The range proof is made again here, from the weights themselves: a plan is not believed because it was compiled.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

import numpy as np

from slalom.errors import ModelError
from slalom.plan import ranges
from slalom.arithmetic.shapes import map_output_shape, weight_bound
from slalom.plan.steps import (
    ACCUMULATOR_LIMIT,
    MAXIMUM_BITS,
    MINIMUM_BITS,
    WEIGHT_LIMIT,
    Accumulator,
    Activation,
    Add,
    Affine,
    Concatenate,
    Graph,
    Layout,
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

MAXIMUM_STEPS = 20_000
MAXIMUM_COUNT = 2**31 - 1
MAXIMUM_WINDOWS = 65_536

_NAME = re.compile(r"[A-Za-z0-9_.\-/:]{1,200}")
_SCALE_LIMITS = (2.0**-60, 2.0**60)


def infer_types(graph: Graph) -> Mapping[str, ValueType]:
    """The type of every value by name, as the graph declares it."""
    return {graph.input.name: graph.input.output, **{step.name: step.output for step in graph.steps}}


def sources_of(step: Step) -> tuple[str, ...]:
    """Every value a step reads, its main source first."""
    if isinstance(step, Concatenate):
        return step.sources
    if isinstance(step, Pointwise):
        return (step.source, *(item.operand for item in step.operations if isinstance(item, Add | Multiply)))
    return (step.source,)


def tensors_of(step: Step) -> tuple[str, ...]:
    """Every tensor a step names."""
    if isinstance(step, Linear):
        return tuple(item.weight for item in step.maps)
    if isinstance(step, Pointwise):
        pairs = [(item.multiplier, item.bias) for item in step.operations if isinstance(item, Affine)]
        return tuple(name for pair in pairs for name in pair)
    return ()


def check_tensors(tensors: Mapping[str, np.ndarray]) -> None:
    """Every tensor is int8 within -127..127 or finite float32, under a proper name."""
    for name, tensor in tensors.items():
        _check_name(name, "tensor")
        if tensor.dtype == np.int8:
            if tensor.size and int(tensor.min()) < -WEIGHT_LIMIT:
                raise ModelError(f"tensor {name!r}: a weight is -128; weights are -127..127")
        elif tensor.dtype != np.float32:
            raise ModelError(f"tensor {name!r}: type {tensor.dtype} is neither int8 nor float32")
        elif not bool(np.isfinite(tensor).all()):
            raise ModelError(f"tensor {name!r}: a number is not finite")


def check_graph(graph: Graph, tensors: Mapping[str, np.ndarray]) -> None:
    """Raises ModelError unless the graph and its tensors form a plan that can be run and proved."""
    check_tensors(tensors)
    _check_face(graph)
    types: dict[str, ValueType] = {graph.input.name: graph.input.output}
    read: set[str] = set()
    names = {graph.input.name, *(step.name for step in graph.steps)}
    for step in graph.steps:
        _check_place(step, types, names)
        read.update(sources_of(step))
        for name in tensors_of(step):
            if name not in tensors:
                raise ModelError(f"step {step.name!r}: names tensor {name!r:.80}, which the plan does not hold")
        _check_type(step.name, step.output)
        _CHECKS[type(step)](step, types, tensors)
        types[step.name] = step.output
    _check_outputs(graph, types, read)
    _check_claims_read_once(graph)
    unused = set(tensors) - {name for step in graph.steps for name in tensors_of(step)}
    if unused:
        raise ModelError(f"tensor {min(unused)!r:.80} belongs to no step")


# ---------------------------------------------------------------- the frame


def _check_name(name: str, what: str) -> None:
    if not _NAME.fullmatch(name):
        raise ModelError(f"{what} name {name!r:.80} is not letters, digits and _ . - / : alone")


def _check_face(graph: Graph) -> None:
    _check_name(graph.input.name, "input")
    _check_type(graph.input.name, graph.input.output)
    _check_layout("input", graph.input.layout, graph.input.output.shape)
    if not 1 <= len(graph.steps) <= MAXIMUM_STEPS:
        raise ModelError(f"a plan has 1..{MAXIMUM_STEPS} steps, this one {len(graph.steps)}")
    if any(not isinstance(step, Pointwise) and not isinstance(step, Softmax) and isinstance(step.output, Real)
           for step in graph.steps):  # fmt: skip
        raise ModelError("only a pointwise step or a softmax gives float numbers")


def _check_place(step: Step, types: Mapping[str, ValueType], names: set[str]) -> None:
    _check_name(step.name, "step")
    if step.name in types:
        raise ModelError(f"step {step.name!r}: the name is taken")
    for source in sources_of(step):
        if source not in names:
            raise ModelError(f"step {step.name!r}: reads {source!r:.80}, which no step makes")
        if source not in types:
            raise ModelError(f"step {step.name!r}: reads {source!r}, which comes later: the graph is cyclic or unordered")


def _check_outputs(graph: Graph, types: Mapping[str, ValueType], read: set[str]) -> None:
    if not graph.outputs:
        raise ModelError("a plan has at least one output")
    wanted = {output.source for output in graph.outputs}
    for output in graph.outputs:
        kind = types.get(output.source)
        if not isinstance(kind, Real):
            raise ModelError(f"output {output.source!r:.80} is not a step that gives float numbers")
        _check_layout(f"output {output.source!r}", output.layout, kind.shape)
    idle = [step.name for step in graph.steps if step.name not in read | wanted]
    if idle:
        raise ModelError(f"step {idle[0]!r}: nothing reads it")
    if graph.input.name not in read:
        raise ModelError("no step reads the input")


def _check_claims_read_once(graph: Graph) -> None:
    """A claim is copied in, checked and used by one pass, so exactly one pointwise step reads it."""
    readers = [source for step in graph.steps for source in sources_of(step)]
    for step in graph.steps:
        if isinstance(step, Linear) and readers.count(step.name) != 1:
            raise ModelError(f"step {step.name!r}: {readers.count(step.name)} readers; a linear result has one")


def _check_layout(what: str, layout: Layout, shape: Shape) -> None:
    if layout is Layout.CHANNELS_FIRST and len(shape) != 3:
        raise ModelError(f"{what}: channels first needs an item of three axes, not {shape}")


def _check_type(name: str, kind: ValueType) -> None:
    if any(extent < 1 for extent in kind.shape) or len(kind.shape) > 6 or math.prod(kind.shape) > MAXIMUM_COUNT:
        raise ModelError(f"{name!r}: shape {kind.shape} is out of range")
    if isinstance(kind, Activation):
        if not MINIMUM_BITS <= kind.bits <= MAXIMUM_BITS:
            raise ModelError(f"{name!r}: {kind.bits} bits; activations have {MINIMUM_BITS}..{MAXIMUM_BITS}")
        if not _SCALE_LIMITS[0] <= kind.scale <= _SCALE_LIMITS[1] or float(np.float32(kind.scale)) != kind.scale:
            raise ModelError(f"{name!r}: scale {kind.scale!r} is not a positive float32 in range")
    elif isinstance(kind, Accumulator) and not 0 <= kind.bound <= ACCUMULATOR_LIMIT:
        raise ModelError(f"{name!r}: bound {kind.bound} exceeds 2^31 - 1")


def _activation(step: Step, source: str, types: Mapping[str, ValueType]) -> Activation:
    kind = types[source]
    if not isinstance(kind, Activation):
        raise ModelError(f"step {step.name!r}: reads {source!r}, which is not an activation")
    return kind


def _expect(step: Step, right: bool, what: str) -> None:
    if not right:
        raise ModelError(f"step {step.name!r}: {what}")


# ---------------------------------------------------------------- one check a step


def _check_linear(step: Linear, types: Mapping[str, ValueType], tensors: Mapping[str, np.ndarray]) -> None:
    source = _activation(step, step.source, types)
    _expect(step, len(step.maps) > 0, "a linear step has at least one map")
    shape = source.shape
    for linear_map in step.maps:
        weight = tensors[linear_map.weight]
        _expect(step, weight.dtype == np.int8, f"weight {linear_map.weight!r} is not int8")
        try:
            shape = map_output_shape(linear_map, weight.shape, shape)
        except ModelError as error:
            raise ModelError(f"step {step.name!r}: {error}") from error
    _expect(step, step.output.shape == shape, f"output shape {step.output.shape} should be {shape}")
    proved = weight_bound(step.maps, tensors) * source.limit
    _expect(step, proved <= ACCUMULATOR_LIMIT, f"range proof fails: sums may reach {proved}, above 2^31 - 1")
    _expect(step, proved <= step.output.bound, f"bound {step.output.bound} is below the proved {proved}")


def _check_pointwise(step: Pointwise, types: Mapping[str, ValueType], tensors: Mapping[str, np.ndarray]) -> None:
    source = types[step.source]
    _expect(step, not isinstance(source, Real), "a float output cannot be read again")
    _expect(step, step.output.shape == source.shape, f"output shape {step.output.shape} should be {source.shape}")
    first = step.operations[0] if step.operations else None
    _expect(step, isinstance(first, Affine), "the first operation must be affine")
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


def _check_affine(step: Pointwise, operation: Affine, count: int, tensors: Mapping[str, np.ndarray]) -> None:
    multiplier, bias = tensors[operation.multiplier], tensors[operation.bias]
    for name, tensor in ((operation.multiplier, multiplier), (operation.bias, bias)):
        right = tensor.dtype == np.float32 and tensor.ndim == 1 and tensor.size > 0 and count % tensor.size == 0
        _expect(step, right, f"tensor {name!r} is not float32 of a length that divides {count}")
    _expect(step, multiplier.size == bias.size, "multiplier and bias differ in length")


def _check_pool(step: Pool, types: Mapping[str, ValueType], tensors: Mapping[str, np.ndarray]) -> None:
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


def _check_concatenate(step: Concatenate, types: Mapping[str, ValueType], tensors: Mapping[str, np.ndarray]) -> None:
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


def _check_reshape(step: Reshape, types: Mapping[str, ValueType], tensors: Mapping[str, np.ndarray]) -> None:
    source = _activation(step, step.source, types)
    _expect(step, math.prod(source.shape) == math.prod(step.output.shape), "reshape changes the count")
    _check_same(step, source, step.output.shape)


def _check_permute(step: Permute, types: Mapping[str, ValueType], tensors: Mapping[str, np.ndarray]) -> None:
    source = _activation(step, step.source, types)
    _expect(step, sorted(step.axes) == list(range(len(source.shape))), f"axes {step.axes} are no permutation")
    _check_same(step, source, tuple(source.shape[axis] for axis in step.axes))


def _check_slice(step: Slice, types: Mapping[str, ValueType], tensors: Mapping[str, np.ndarray]) -> None:
    source = _activation(step, step.source, types)
    _expect(step, len(step.windows) == len(source.shape), "a slice names one window an axis")
    for window, extent in zip(step.windows, source.shape, strict=True):
        _check_window(step, window, extent)
    _check_same(step, source, tuple(len(range(item.start, item.stop, item.step)) for item in step.windows))


def _check_pad(step: Pad, types: Mapping[str, ValueType], tensors: Mapping[str, np.ndarray]) -> None:
    source = _activation(step, step.source, types)
    right = len(step.before) == len(step.after) == len(source.shape) and min(*step.before, *step.after, 0) == 0
    _expect(step, right, "padding is one non-negative count an axis, before and after")
    pads = zip(step.before, source.shape, step.after, strict=True)
    _check_same(step, source, tuple(before + extent + after for before, extent, after in pads))


def _check_softmax(step: Softmax, types: Mapping[str, ValueType], tensors: Mapping[str, np.ndarray]) -> None:
    source = _activation(step, step.source, types)
    _expect(step, len(source.shape) >= 1, "softmax needs an axis")
    _expect(step, step.output.shape == source.shape, f"output shape {step.output.shape} should be {source.shape}")


_CHECKS = {
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
