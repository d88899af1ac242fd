"""Maxima, means and sums over windows of an image, or over whole axes."""

from __future__ import annotations

import math

import numpy as np

from slalom.errors import ModelError
from slalom.importer.builder import IMAGE_ORDER, Handle
from slalom.importer.call import Call, Lowering, Result, item_axes
from slalom.importer.graph import Pool
from slalom.plan.steps import Reduction, Window


def lower_max_pool(call: Call) -> Result:
    """max_pool2d; padding never wins, so windows are clipped to the image."""
    image = call.builder.arrange(call.handle("self"), IMAGE_ORDER)
    kernel, stride = call.pair("kernel_size"), _stride(call)
    padding, dilation = call.pair("padding"), call.pair("dilation")
    rows, columns = (
        tuple(
            _clip(index * stride[axis] - padding[axis], kernel[axis], dilation[axis], image.stored[axis])
            for index in range(call.shape[1 + axis])
        )
        for axis in (0, 1)
    )
    pooled = call.builder.append(
        Pool(Reduction.MAXIMUM, rows, columns), [image], Handle("", call.shape, IMAGE_ORDER), gain=1.0
    )
    return (pooled,)


def lower_mean_pool(call: Call) -> Handle:
    """avg_pool2d; the divisor counts padding or not, as torch does."""
    image = call.builder.arrange(call.handle("self"), IMAGE_ORDER)
    kernel, stride, padding = call.pair("kernel_size"), _stride(call), call.pair("padding")
    windows, counts = [], []
    for axis in (0, 1):
        extent = image.stored[axis]
        starts = [index * stride[axis] - padding[axis] for index in range(call.shape[1 + axis])]
        clipped = [_clip(start, kernel[axis], 1, extent) for start in starts]
        windows.append(tuple(clipped))
        padded = [min(start + kernel[axis], extent + padding[axis]) - start for start in starts]
        counts.append(padded if call["count_include_pad"] else [window.stop - window.start for window in clipped])
    divisor = call["divisor_override"]
    if divisor is not None:
        counts = [[divisor] * len(windows[0]), [1] * len(windows[1])]
    return _average(call, image, windows, counts)


def lower_adaptive_mean_pool(call: Call) -> Handle:
    """adaptive_avg_pool2d: windows of almost equal size that cover the image."""
    image = call.builder.arrange(call.handle("self"), IMAGE_ORDER)
    windows = [_adaptive(image.stored[axis], call.shape[1 + axis]) for axis in (0, 1)]
    counts = [[window.stop - window.start for window in along] for along in windows]
    return _average(call, image, windows, counts)


def lower_adaptive_max_pool(call: Call) -> Result:
    """adaptive_max_pool2d."""
    image = call.builder.arrange(call.handle("self"), IMAGE_ORDER)
    rows, columns = (_adaptive(image.stored[axis], call.shape[1 + axis]) for axis in (0, 1))
    operation = Pool(Reduction.MAXIMUM, rows, columns)
    return (call.builder.append(operation, [image], Handle("", call.shape, IMAGE_ORDER), gain=1.0),)


def lower_mean(call: Call) -> Handle:
    """mean over item axes."""
    return _reduce(call, Reduction.SUM, mean=True)


def lower_sum(call: Call) -> Handle:
    """sum over item axes."""
    return _reduce(call, Reduction.SUM, mean=False)


def lower_maximum(call: Call) -> Handle:
    """amax over item axes."""
    return _reduce(call, Reduction.MAXIMUM, mean=False)


def _reduce(call: Call, reduction: Reduction, mean: bool) -> Handle:
    """The reduced axes become the rows of an image of one column."""
    builder, source = call.builder, call.handle("self")
    rank = len(source.shape)
    axes = item_axes(call["dim"], rank)
    kept = tuple(axis for axis in source.order if axis not in axes)
    source = builder.arrange(source, (*(axis for axis in source.order if axis in axes), *kept))
    count = math.prod(source.shape[axis] for axis in axes)
    # Stored row-major, the reduced axes come first: an image whose rows and columns they are holds the same numbers.
    is_image = rank == 3 and len(axes) == 2
    rest = math.prod(source.shape[axis] for axis in kept)
    image = source.stored if is_image else (count, 1, rest)
    stored = builder.view(source, Handle("", image, (0, 1, 2)))
    windows = [(Window(0, extent),) for extent in image[:2]]
    operation = Pool(reduction, windows[0], windows[1], np.full(1, 1 / count if mean else 1.0))
    gain = 1.0 if reduction is Reduction.MAXIMUM else None
    pooled = builder.append(operation, [stored], Handle("", (1, 1, rest), (0, 1, 2)), gain=gain)
    full = tuple(1 if axis in axes else source.shape[axis] for axis in range(rank))
    return builder.reshape(builder.view(pooled, Handle("", full, source.order)), call.shape)


def _average(call: Call, image: Handle, windows: list[tuple[Window, ...]], counts: list[list[int]]) -> Handle:
    factors = 1 / np.outer(counts[0], counts[1]).astype(np.float64)
    if (factors == factors.flat[0]).all():
        factors = factors.reshape(-1)[:1]
    else:
        factors = np.repeat(factors.reshape(-1), image.stored[2])
    operation = Pool(Reduction.SUM, windows[0], windows[1], factors)
    return call.builder.append(operation, [image], Handle("", call.shape, IMAGE_ORDER))


def _stride(call: Call) -> tuple[int, int]:
    return call.pair("stride") if call["stride"] else call.pair("kernel_size")


def _clip(start: int, kernel: int, dilation: int, extent: int) -> Window:
    """The positions start, start + dilation, ... of the kernel that lie in 0..extent."""
    positions = [position for position in range(start, start + kernel * dilation, dilation) if 0 <= position < extent]
    if not positions:
        raise ModelError("a window lies wholly in the padding")
    return Window(positions[0], positions[-1] + 1, dilation)


def _adaptive(extent: int, count: int) -> tuple[Window, ...]:
    bounds = [(index * extent // count, -(-(index + 1) * extent // count)) for index in range(count)]
    return tuple(Window(start, stop) for start, stop in bounds)


OPERATORS: dict[str, Lowering] = {
    "aten.max_pool2d.default": lambda call: lower_max_pool(call)[0],  # type: ignore[index]
    "aten.max_pool2d_with_indices.default": lower_max_pool,
    "aten.avg_pool2d.default": lower_mean_pool,
    "aten.adaptive_avg_pool2d.default": lower_adaptive_mean_pool,
    "aten._adaptive_avg_pool2d.default": lower_adaptive_mean_pool,
    "aten.adaptive_max_pool2d.default": lower_adaptive_max_pool,
    "aten.mean.dim": lower_mean,
    "aten.sum.dim_IntList": lower_sum,
    "aten.amax.default": lower_maximum,
}
