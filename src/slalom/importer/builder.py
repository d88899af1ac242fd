"""Builds the float graph: torch's axis order outside, the plan's inside, and a permutation only where one is needed.

A `Handle` is a torch tensor whose axes may be stored in another order. Permuting a torch tensor changes its handle and
nothing else; a step that needs a certain order asks for it with `arrange`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from slalom.errors import ModelError
from slalom.importer.graph import Add, Affine, Entry, FloatGraph, Floats, Multiply, Node, Operation, Permute, Reshape
from slalom.plan.steps import Layout, Shape

IMAGE_ORDER = (1, 2, 0)  # torch's (channels, height, width) stored as (height, width, channels)


@dataclass(frozen=True)
class Handle:
    """The value `name`: an item of torch shape `shape`, whose stored axis k is torch's axis `order[k]`."""

    name: str
    shape: Shape
    order: tuple[int, ...]

    @property
    def stored(self) -> Shape:
        """The item's shape as it is stored."""
        return tuple(self.shape[axis] for axis in self.order)


def native_order(rank: int) -> tuple[int, ...]:
    """The order in which the plan takes and gives items of this rank."""
    return IMAGE_ORDER if rank == 3 else tuple(range(rank))


def native_layout(rank: int) -> Layout:
    """The layout of an input or output of this rank."""
    return Layout.CHANNELS_FIRST if rank == 3 else Layout.PLAIN


class Builder:
    """Adds nodes to a graph. `label` and `observed` describe the torch node that is being lowered."""

    def __init__(self, item_shape: Shape, observed: str) -> None:
        self.nodes: dict[str, Node] = {}
        self.label = "input"
        self.observed = observed
        order = native_order(len(item_shape))
        entry = Handle("input", item_shape, order)
        self.nodes["input"] = Node("input", Entry(), (), entry.stored, observed)
        self.entry = entry

    def finish(self, outputs: Sequence[Handle]) -> FloatGraph:
        """The graph, its outputs brought to the plan's order."""
        arranged = [self.arrange(output, native_order(len(output.shape))) for output in outputs]
        named = tuple((output.name, native_layout(len(output.shape))) for output in arranged)
        return FloatGraph(self.nodes, self.entry.name, native_layout(len(self.entry.shape)), named)

    def unique(self, label: str) -> str:
        """The label as a proper name that no node has."""
        label = re.sub(r"[^A-Za-z0-9_.\-/:]", "_", label)[-160:] or "value"
        name, count = label, 1
        while name in self.nodes:
            count += 1
            name = f"{label}.{count}"
        return name

    def append(
        self, operation: Operation, sources: Sequence[Handle], like: Handle, *, gain: float | None = None
    ) -> Handle:
        """A node with the shape and order of `like`. With a `gain`, its range is that many times its sources'."""
        name = self.unique(self.label)
        observed = self.observed if gain is None else None
        names = tuple(source.name for source in sources)
        self.nodes[name] = Node(name, operation, names, like.stored, observed, 1.0 if gain is None else gain)
        return Handle(name, like.shape, like.order)

    def arrange(self, handle: Handle, order: tuple[int, ...]) -> Handle:
        """The same tensor, stored in this order."""
        if order == handle.order:
            return handle
        axes = tuple(handle.order.index(axis) for axis in order)
        moved = Handle(handle.name, handle.shape, order)
        wide = [axis for axis in axes if handle.stored[axis] > 1]
        if wide == sorted(wide):
            return self.view(handle, moved)
        source = self.nodes[handle.name]
        if isinstance(source.operation, Permute):
            axes = tuple(source.operation.axes[axis] for axis in axes)
            before = self.nodes[source.sources[0]]
            if axes == tuple(range(len(axes))):
                return Handle(before.name, handle.shape, order)
            handle = Handle(before.name, handle.shape, handle.order)
        return self.append(Permute(axes), [handle], moved, gain=1.0)

    def reshape(self, handle: Handle, shape: Shape) -> Handle:
        """The torch tensor reshaped, row-major."""
        if math.prod(shape) != math.prod(handle.shape):
            raise ModelError(f"a reshape from {handle.shape} to {shape} mixes items of the batch")
        if shape == handle.shape:
            return handle
        plain = self.arrange(handle, tuple(range(len(handle.shape))))
        return self.view(plain, Handle(plain.name, shape, tuple(range(len(shape)))))

    def affine(self, handle: Handle, multiplier: Floats, bias: Floats, *, gain: float | None = None) -> Handle:
        """handle * multiplier + bias; both broadcast to the item as torch does, without the batch axis."""
        pair = [np.broadcast_to(np.asarray(item, np.float64), _widest(multiplier, bias)) for item in (multiplier, bias)]
        entries = [self._entries(handle, item) for item in pair]
        return self.append(Affine(entries[0], entries[1]), [handle], handle, gain=gain)

    def join(self, operation: Add | Multiply, first: Handle, second: Handle) -> Handle:
        """The sum or product of two tensors, the smaller broadcast over the leading stored axes of the larger."""
        rank = max(len(first.shape), len(second.shape))
        first, second = self._raise_rank(first, rank), self._raise_rank(second, rank)
        shape = np.broadcast_shapes(first.shape, second.shape)
        larger, smaller = (first, second) if first.shape == shape else (second, first)
        if larger.shape != shape:
            raise ModelError(f"{first.shape} and {second.shape} broadcast against each other")
        lead = [axis for axis in range(rank) if smaller.shape[axis] == 1 and shape[axis] > 1]
        if not _is_suffix([smaller.shape[axis] for axis in larger.order], list(larger.stored)):
            order = (*lead, *(axis for axis in larger.order if axis not in lead))
            larger = self.arrange(larger, order)
        smaller = self.arrange(smaller, larger.order)
        return self.append(operation, [larger, smaller], larger)

    def _raise_rank(self, handle: Handle, rank: int) -> Handle:
        return self.reshape(handle, (1,) * (rank - len(handle.shape)) + handle.shape)

    def view(self, handle: Handle, target: Handle) -> Handle:
        """The numbers as they are stored, under the shape and order of `target`; reshapes of reshapes become one."""
        source = self.nodes[handle.name]
        if isinstance(source.operation, Reshape):
            source = self.nodes[source.sources[0]]
        if source.shape == target.stored:
            return Handle(source.name, target.shape, target.order)
        bottom = Handle(source.name, target.shape, target.order)
        return self.append(Reshape(), [bottom], target, gain=1.0)

    def _entries(self, handle: Handle, constant: Floats) -> Floats:
        """The constant as a row in stored order, as short as the repetition over leading axes allows."""
        rank = len(handle.shape)
        shape = (1,) * (rank - constant.ndim) + constant.shape
        if len(shape) != rank or np.broadcast_shapes(shape, handle.shape) != handle.shape:
            raise ModelError(f"a constant of shape {constant.shape} does not broadcast to an item {handle.shape}")
        stored = constant.reshape(shape).transpose(handle.order) if rank else constant.reshape(())
        if stored.size == 1:
            return stored.reshape(1)
        lead = next(axis for axis in range(rank) if stored.shape[axis] > 1)
        return np.broadcast_to(stored, (*stored.shape[:lead], *handle.stored[lead:])).reshape(-1)


def _widest(*constants: Floats) -> Shape:
    return np.broadcast_shapes(*(np.shape(constant) for constant in constants))


def _is_suffix(smaller: list[int], larger: list[int]) -> bool:
    """Whether the smaller shape is ones, then the larger's last axes."""
    lead = 0
    while lead < len(smaller) and smaller[lead] == 1:
        lead += 1
    return smaller[lead:] == larger[lead:]
