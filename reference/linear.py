"""Linear maps over plain integers, tap by tap, and their transposes by scattering.

Nothing wraps here: whoever wants residues takes them of the exact result.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slalom.plan.steps import Convolution, Linear, LinearMap, Shape

Integers = NDArray[Any]  # exact: int64 where it holds the result, Python integers (dtype object) elsewhere
Tensors = Mapping[str, NDArray[Any]]


def apply_step(step: Linear, tensors: Tensors, x: Integers) -> Integers:
    """The integers W·x of a step, [batch, *input] -> [batch, *output], without any wrap."""
    for linear_map in step.maps:
        x = apply_map(linear_map, tensors, x)
    return x


def transpose_step(step: Linear, tensors: Tensors, s: Integers, input_shape: Shape) -> Integers:
    """The integers Wᵀ·s of a step, [batch, *output] -> [batch, *input]: the maps transposed, last one first."""
    shapes = [input_shape]
    for linear_map in step.maps[:-1]:
        shapes.append(output_shape(linear_map, tensors, shapes[-1]))
    for linear_map, shape in zip(reversed(step.maps), reversed(shapes), strict=True):
        s = transpose_map(linear_map, tensors, s, shape)
    return s


def apply_map(linear_map: LinearMap, tensors: Tensors, x: Integers) -> Integers:
    """y = W·x by gathering: each output position reads its inputs."""
    weight, x = exact(tensors[linear_map.weight], x)
    if not isinstance(linear_map, Convolution):
        return x @ weight
    y = np.zeros((len(x), *output_shape(linear_map, tensors, x.shape[1:])), dtype=x.dtype)
    inputs, outputs = weight.shape[2], weight.shape[3] // linear_map.groups  # channels per group
    for a, b in np.ndindex(weight.shape[:2]):
        i, rows = taps(linear_map, 0, a, y.shape[1], x.shape[1])
        j, columns = taps(linear_map, 1, b, y.shape[2], x.shape[2])
        for group in range(linear_map.groups):
            read, write = channels(group, inputs), channels(group, outputs)
            y[np.ix_(every(y), i, j, write)] += x[np.ix_(every(x), rows, columns, read)] @ weight[a, b][:, write]
    return y


def transpose_map(linear_map: LinearMap, tensors: Tensors, s: Integers, input_shape: Shape) -> Integers:
    """x = Wᵀ·s by scattering: each output position adds to the inputs that it would have read."""
    weight, s = exact(tensors[linear_map.weight], s)
    if not isinstance(linear_map, Convolution):
        return s @ weight.T
    x = np.zeros((len(s), *input_shape), dtype=s.dtype)
    inputs, outputs = weight.shape[2], weight.shape[3] // linear_map.groups
    (down, right), (top, _, left, _), spread = linear_map.stride, linear_map.padding, linear_map.dilation
    for a, b in np.ndindex(weight.shape[:2]):
        rows = np.arange(s.shape[1]) * down + a * spread[0] - top  # the input row that each output row read
        columns = np.arange(s.shape[2]) * right + b * spread[1] - left
        i = np.flatnonzero((rows >= 0) & (rows < input_shape[0])).tolist()
        j = np.flatnonzero((columns >= 0) & (columns < input_shape[1])).tolist()
        for group in range(linear_map.groups):
            read, write = channels(group, inputs), channels(group, outputs)
            # within one tap no two outputs read the same input, so += adds each of them
            scattered = s[np.ix_(every(s), i, j, write)] @ weight[a, b][:, write].T
            x[np.ix_(every(x), rows[i].tolist(), columns[j].tolist(), read)] += scattered
    return x


def output_shape(linear_map: LinearMap, tensors: Tensors, input_shape: Shape) -> Shape:
    """The item shape that a map gives for an item shape."""
    weight = tensors[linear_map.weight]
    if not isinstance(linear_map, Convolution):
        return (*input_shape[:-1], weight.shape[1])
    top, bottom, left, right = linear_map.padding
    height = (input_shape[0] + top + bottom - linear_map.dilation[0] * (weight.shape[0] - 1) - 1) // linear_map.stride[
        0
    ]
    width = (input_shape[1] + left + right - linear_map.dilation[1] * (weight.shape[1] - 1) - 1) // linear_map.stride[1]
    return (height + 1, width + 1, weight.shape[3])


def taps(convolution: Convolution, axis: int, tap: int, outputs: int, inputs: int) -> tuple[list[int], list[int]]:
    """The output indices along an axis whose `tap` lies inside the image, and the input indices it reads there."""
    before = convolution.padding[2 * axis]
    read = [i * convolution.stride[axis] + tap * convolution.dilation[axis] - before for i in range(outputs)]
    inside = [i for i in range(outputs) if 0 <= read[i] < inputs]
    return inside, [read[i] for i in inside]


def channels(group: int, count: int) -> list[int]:
    """The channels of a group."""
    return list(range(group * count, (group + 1) * count))


def every(x: Integers) -> list[int]:
    """All indices of the batch axis."""
    return list(range(len(x)))


def exact(weight: NDArray[Any], x: Integers) -> tuple[Integers, Integers]:
    """Both operands in a type that holds every partial sum of their product: int64 where it suffices, else object.

    A sum has at most `weight.size` products, so |sum| <= size * max|W| * max|x|; int64 serves below 2**63.
    """
    magnitude = max((abs(int(v)) for v in (x.max(), x.min())), default=0) if x.size else 0
    bound = weight.size * int(np.abs(weight.astype(np.int64)).max()) * magnitude
    kind: type = np.int64 if bound < 2**63 else object
    return weight.astype(kind), x.astype(kind)
