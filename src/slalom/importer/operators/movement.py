"""Operators that move numbers and change none."""

from __future__ import annotations

from itertools import pairwise

from slalom.errors import ModelError
from slalom.importer.builder import Handle
from slalom.importer.call import Call, Lowering, item_axis
from slalom.importer.graph import Concatenate, Pad, Slice, Softmax
from slalom.plan.steps import Window


def lower_identity(call: Call) -> Handle:
    """The value itself: dropout in inference, copies, casts to float32."""
    return call.handle("input" if "input" in call.arguments else "self")


def lower_reshape(call: Call) -> Handle:
    """view, reshape, flatten, squeeze and their kin: the result's shape says it all."""
    return call.builder.reshape(call.handle("self"), call.shape)


def lower_permute(call: Call) -> Handle:
    """permute."""
    source = call.handle("self")
    rank = len(source.shape)
    dimensions = [dimension % (rank + 1) for dimension in call["dims"]]
    if dimensions[0] != 0:
        raise ModelError("it moves the batch, but the first axis must stay the batch")
    return _permute(source, [dimension - 1 for dimension in dimensions[1:]])


def lower_transpose(call: Call) -> Handle:
    """transpose of two axes."""
    source = call.handle("self")
    axes = list(range(len(source.shape)))
    first, second = call.axis("dim0", source), call.axis("dim1", source)
    axes[first], axes[second] = axes[second], axes[first]
    return _permute(source, axes)


def lower_expand(call: Call) -> Handle:
    """expand to the same shape."""
    source = call.handle("self")
    if call.shape != source.shape:
        raise ModelError(f"expand from {source.shape} to {call.shape} repeats numbers, which no step does")
    return source


def lower_slice(call: Call) -> Handle:
    """x[..., start:end:step, ...]."""
    source = call.handle("self")
    rank = len(source.shape)
    whole = call["start"] in (None, 0) and call["step"] == 1 and (call["end"] is None or call["end"] >= 2**31)
    if call["dim"] % (rank + 1) == 0 and whole:
        return source
    axis = item_axis(call["dim"], rank)
    start, stop, step = slice(call["start"], call["end"], call["step"]).indices(source.shape[axis])
    return _cut(call, source, axis, Window(start, stop, step))


def lower_narrow(call: Call) -> Handle:
    """narrow(dim, start, length)."""
    source = call.handle("self")
    axis = call.axis("dim", source)
    start = call["start"] % source.shape[axis]
    return _cut(call, source, axis, Window(start, start + call["length"]))


def lower_select(call: Call) -> Handle:
    """x[..., index, ...], which loses the axis."""
    source = call.handle("self")
    axis = call.axis("dim", source)
    index = call["index"] % source.shape[axis]
    return call.builder.reshape(_cut(call, source, axis, Window(index, index + 1)), call.shape)


def lower_split(call: Call) -> tuple[Handle, ...]:
    """split by one size or by several."""
    source = call.handle("self")
    axis = call.axis("dim", source)
    extent = source.shape[axis]
    if "split_sizes" in call.arguments:
        sizes = list(call["split_sizes"])
    else:
        size = call["split_size"]
        sizes = [min(size, extent - start) for start in range(0, extent, size)]
    bounds = [sum(sizes[:index]) for index in range(len(sizes) + 1)]
    return tuple(_cut(call, source, axis, Window(start, stop)) for start, stop in pairwise(bounds))


def lower_chunk(call: Call) -> tuple[Handle, ...]:
    """chunk into parts of one size, the last perhaps smaller."""
    source = call.handle("self")
    extent = source.shape[call.axis("dim", source)]
    call.arguments["split_size"] = -(-extent // call["chunks"])
    return lower_split(call)


def lower_unbind(call: Call) -> tuple[Handle, ...]:
    """Every index of an axis."""
    source = call.handle("self")
    axis = call.axis("dim", source)
    rest = tuple(extent for position, extent in enumerate(source.shape) if position != axis)
    cuts = [_cut(call, source, axis, Window(index, index + 1)) for index in range(source.shape[axis])]
    return tuple(call.builder.reshape(cut, rest) for cut in cuts)


def lower_concatenate(call: Call) -> Handle:
    """cat along an item axis."""
    handles = call["tensors"]
    if not all(isinstance(handle, Handle) for handle in handles):
        raise ModelError("it joins a constant, which no step does")
    first: Handle = handles[0]
    axis = call.axis("dim", first)
    arranged = [call.builder.arrange(handle, first.order) for handle in handles]
    if len(arranged) == 1:
        return first
    stored_axis = first.order.index(axis)
    return call.builder.append(Concatenate(stored_axis), arranged, Handle("", call.shape, first.order))


def lower_pad(call: Call) -> Handle:
    """Constant padding with zeros."""
    source = call.handle("self")
    if call.arguments.get("mode", "constant") != "constant" or call.arguments.get("value") not in (None, 0, 0.0):
        raise ModelError("only padding with zeros is supported")
    amounts = list(call["pad"])
    if len(amounts) // 2 > len(source.shape) or min(amounts, default=0) < 0:
        raise ModelError("padding is not negative, and never along the batch")
    rank = len(source.shape)
    before, after = [0] * rank, [0] * rank
    for index in range(len(amounts) // 2):
        before[rank - 1 - index], after[rank - 1 - index] = amounts[2 * index], amounts[2 * index + 1]
    if not any(amounts):
        return source
    operation = Pad(tuple(before[axis] for axis in source.order), tuple(after[axis] for axis in source.order))
    return call.builder.append(operation, [source], Handle("", call.shape, source.order), gain=1.0)


def lower_softmax(logarithm: bool) -> Lowering:
    """softmax or log_softmax over one item axis, which is stored last."""

    def lower(call: Call) -> Handle:
        source = call.handle("self")
        axis = call.axis("dim", source)
        if source.order[-1] != axis:
            source = call.builder.arrange(source, (*(item for item in source.order if item != axis), axis))
        return call.builder.append(Softmax(logarithm), [source], source)

    return lower


def _permute(source: Handle, axes: list[int]) -> Handle:
    """Axis k of the result is axis `axes[k]` of the source; nothing moves in memory."""
    shape = tuple(source.shape[axis] for axis in axes)
    return Handle(source.name, shape, tuple(axes.index(axis) for axis in source.order))


def _cut(call: Call, source: Handle, axis: int, window: Window) -> Handle:
    extent = source.shape[axis]
    if (window.start, window.stop, window.step) == (0, extent, 1):
        return source
    windows = [Window(0, length) for length in source.shape]
    windows[axis] = window
    shape = list(source.shape)
    shape[axis] = len(range(window.start, window.stop, window.step))
    operation = Slice(tuple(windows[item] for item in source.order))
    return call.builder.append(operation, [source], Handle("", tuple(shape), source.order), gain=1.0)


OPERATORS: dict[str, Lowering] = {
    **dict.fromkeys(
        (
            "aten.dropout.default",
            "aten.feature_dropout.default",
            "aten.alias.default",
            "aten.clone.default",
            "aten.contiguous.default",
            "aten.detach.default",
            "aten.lift_fresh_copy.default",
            "aten.to.dtype",
            "aten._to_copy.default",
        ),
        lower_identity,
    ),
    **dict.fromkeys(
        (
            "aten.view.default",
            "aten._unsafe_view.default",
            "aten.reshape.default",
            "aten.flatten.using_ints",
            "aten.unflatten.int",
            "aten.squeeze.default",
            "aten.squeeze.dim",
            "aten.squeeze.dims",
            "aten.unsqueeze.default",
        ),
        lower_reshape,
    ),
    "aten.permute.default": lower_permute,
    "aten.transpose.int": lower_transpose,
    "aten.expand.default": lower_expand,
    "aten.slice.Tensor": lower_slice,
    "aten.narrow.default": lower_narrow,
    "aten.select.int": lower_select,
    "aten.split.Tensor": lower_split,
    "aten.split_with_sizes.default": lower_split,
    "aten.chunk.default": lower_chunk,
    "aten.unbind.int": lower_unbind,
    "aten.cat.default": lower_concatenate,
    "aten.pad.default": lower_pad,
    "aten.constant_pad_nd.default": lower_pad,
    "aten.softmax.int": lower_softmax(logarithm=False),
    "aten._softmax.default": lower_softmax(logarithm=False),
    "aten.log_softmax.int": lower_softmax(logarithm=True),
    "aten._log_softmax.default": lower_softmax(logarithm=True),
}
