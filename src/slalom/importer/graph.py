"""The network in float numbers, between torch and the plan: the plan's own operations, before any scale is chosen.

Shapes are per item, in the order in which the plan stores them. A node makes one value, which bears the node's name.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from slalom.errors import ModelError
from slalom.plan.steps import Function, Layout, LinearMap, Reduction, Shape, Window

Floats = NDArray[np.float64]
Weights = NDArray[np.float32]


@dataclass(frozen=True)
class Entry:
    """The network's input."""


@dataclass(frozen=True)
class Linear:
    """A linear map and a bias over the last axis. `weight` has the plan's axes; `tensor` is what it will be called.

    Weights stay in single precision, C-contiguous: a network has a hundred million of them, and int8 needs no more.
    """

    linear_map: LinearMap
    tensor: str
    weight: Weights
    bias: Floats

    @property
    def is_local(self) -> bool:
        """Whether every output depends on one pixel, without padding: a constant passes through as a constant."""
        if self.weight.ndim == 2:
            return True
        padding = getattr(self.linear_map, "padding", ())
        return self.weight.shape[:2] == (1, 1) and not any(padding)


@dataclass(frozen=True)
class Affine:
    """v * multiplier + bias, both of one length that divides the count; element e uses entry e mod length."""

    multiplier: Floats
    bias: Floats


@dataclass(frozen=True)
class Apply:
    """function(v)."""

    function: Function
    parameter: float = 0.0


@dataclass(frozen=True)
class Add:
    """The sum of two sources; the smaller is repeated as in the plan's `Add`."""


@dataclass(frozen=True)
class Multiply:
    """The product of two sources; the smaller is repeated as in the plan's `Multiply`."""


@dataclass(frozen=True)
class Pool:
    """The maximum over windows, or their sum times `factors` (one for every output element, or one for all)."""

    reduction: Reduction
    rows: tuple[Window, ...]
    columns: tuple[Window, ...]
    factors: Floats = field(default_factory=lambda: np.ones(1))


@dataclass(frozen=True)
class Concatenate:
    """All sources along one axis."""

    axis: int


@dataclass(frozen=True)
class Reshape:
    """The same numbers in row-major order."""


@dataclass(frozen=True)
class Permute:
    """Axis k of the output is axis `axes[k]` of the source."""

    axes: tuple[int, ...]


@dataclass(frozen=True)
class Slice:
    """The indices of one window along every axis."""

    windows: tuple[Window, ...]


@dataclass(frozen=True)
class Pad:
    """Zeros along every axis."""

    before: tuple[int, ...]
    after: tuple[int, ...]


@dataclass(frozen=True)
class Softmax:
    """Softmax over the last axis, or its logarithm."""

    logarithm: bool


Operation = (
    Entry | Linear | Affine | Apply | Add | Multiply | Pool | Concatenate | Reshape | Permute | Slice | Pad | Softmax
)


@dataclass(frozen=True)
class Node:
    """One operation. Its range is `gain` times that of the torch value `observed`, or of its sources where None."""

    name: str
    operation: Operation
    sources: tuple[str, ...]
    shape: Shape
    observed: str | None = None
    gain: float = 1.0


@dataclass
class FloatGraph:
    """Nodes in an order in which sources come first, the input's name, and the outputs with their layouts."""

    nodes: dict[str, Node]
    input: str
    input_layout: Layout
    outputs: tuple[tuple[str, Layout], ...]

    def __iter__(self) -> Iterator[Node]:
        """The nodes in order, as they are when their turn comes; nodes may be replaced and removed meanwhile."""
        return (self.nodes[name] for name in list(self.nodes) if name in self.nodes)

    def reader_counts(self) -> Counter[str]:
        """How often each value is read; leaving the network counts as one."""
        counts = Counter(source for node in self.nodes.values() for source in node.sources)
        counts.update(name for name, _ in self.outputs)
        return counts

    def put(self, node: Node) -> None:
        """Replaces the node of that name in its place."""
        self.nodes[node.name] = node

    def bypass(self, name: str, other: str) -> None:
        """Whoever reads `name` reads `other` from now on; the node `name` is removed."""
        del self.nodes[name]
        for node in self:
            if name in node.sources:
                sources = tuple(other if source == name else source for source in node.sources)
                self.put(replace(node, sources=sources))
        self.outputs = tuple((other if name == output else output, layout) for output, layout in self.outputs)

    def sort(self) -> None:
        """Brings sources before their readers again, leaving everything else in its place."""
        ordered: dict[str, Node] = {}
        for start in self.nodes:
            pending = [start]
            while pending:
                node = self.nodes[pending[-1]]
                missing = [source for source in node.sources if source not in ordered]
                if missing:
                    pending.extend(reversed(missing))
                    continue
                ordered.setdefault(pending.pop(), node)
        self.nodes = ordered

    def reach(self, name: str, ranges: Mapping[str, float]) -> float:
        """The largest magnitude of a value, from the observed ranges."""
        node = self.nodes[name]
        if node.observed is not None:
            return node.gain * ranges[node.observed]
        return node.gain * max(self.reach(source, ranges) for source in node.sources)

    def drop_unread(self) -> None:
        """Removes every node that no output depends on. Raises ModelError when the input is one of them."""
        wanted = {name for name, _ in self.outputs}
        for node in reversed(list(self.nodes.values())):
            if node.name in wanted:
                wanted.update(node.sources)
        if self.input not in wanted:
            raise ModelError("the network's outputs do not depend on its input")
        self.nodes = {name: node for name, node in self.nodes.items() if name in wanted}
