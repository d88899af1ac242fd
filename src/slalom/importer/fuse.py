"""Groups the float graph into steps: elementwise operations ride with the linear map or the pool before them.

A value becomes an activation only where something needs it as integers: a second reader, a linear map, a move, an
operand. Everything between is one float32 program.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace

from slalom.errors import ModelError
from slalom.importer.graph import (
    Add,
    Affine,
    Apply,
    Entry,
    FloatGraph,
    Linear,
    Multiply,
    Node,
    Pool,
    Softmax,
)
from slalom.plan.steps import Layout, Reduction, Shape

Elementwise = Affine | Apply | Add | Multiply


@dataclass(frozen=True)
class Joined:
    """An `Add` or `Multiply` with an earlier value, by its step."""

    operation: Add | Multiply
    operand: str


@dataclass(frozen=True)
class Program:
    """A pointwise step: `source` is the step it reads, `node` the float node whose value it gives.

    `root` is the accumulator it begins with, if any, which is placed right before it: sums are used up at once.
    """

    name: str
    source: str
    operations: tuple[Affine | Apply | Joined, ...]
    node: str
    shape: Shape
    is_real: bool = False
    root: Direct | None = None


@dataclass(frozen=True)
class Direct:
    """A step that stands for one node; `sources` are steps."""

    name: str
    sources: tuple[str, ...]
    node: Node
    is_real: bool = False


Draft = Program | Direct


@dataclass(frozen=True)
class Schedule:
    """Drafts in order, and the outputs by step."""

    drafts: tuple[Draft, ...]
    outputs: tuple[tuple[str, Layout], ...]


def fuse_graph(graph: FloatGraph) -> Schedule:
    """The steps of a folded graph, before any scale is chosen."""
    return _Fusion(graph).run()


def makes_accumulator(node: Node) -> bool:
    """Whether the node's integers are sums that must be scaled before anything else."""
    if isinstance(node.operation, Pool):
        return node.operation.reduction is Reduction.SUM
    return isinstance(node.operation, Linear)


class _Fusion:
    """`open`: programs that go on; `steps`: the step that gives a node's value as an activation (or as reals)."""

    def __init__(self, graph: FloatGraph) -> None:
        self.graph = graph
        self.readers: Counter[str] = graph.reader_counts()
        self.leaving = {name for name, _ in graph.outputs}
        self.mains = dict(self._choose_mains())
        self.open: dict[str, Program] = {}
        self.steps: dict[str, str] = {}
        self.real_steps: dict[str, str] = {}
        self.drafts: list[Draft] = []

    def run(self) -> Schedule:
        for node in self.graph:
            if isinstance(node.operation, Entry):
                self.steps[node.name] = node.name
                self._export(node)
            elif makes_accumulator(node):
                root = Direct(node.name, (self.steps[node.sources[0]],), node)
                name = f"{node.name}.epilogue"
                self._advance(node, Program(name, node.name, (), node.name, node.shape, root=root))
            elif isinstance(node.operation, Elementwise):
                self._advance(node, self._continue(node))
            else:
                self._place(node)
        return Schedule(
            tuple(self.drafts), tuple((self.real_steps[name], layout) for name, layout in self.graph.outputs)
        )

    def _choose_mains(self) -> Iterator[tuple[str, str]]:
        """For every elementwise node, the source whose program it continues: one that nothing else reads, if any."""
        for node in self.graph:
            if isinstance(node.operation, Elementwise):
                full = [
                    source for source in node.sources if _count(self.graph, source) == _count(self.graph, node.name)
                ]
                free = [source for source in full if self._can_stay_open(source)]
                yield node.name, (free or full)[0]

    def _can_stay_open(self, name: str) -> bool:
        node = self.graph.nodes[name]
        fusible = makes_accumulator(node) or isinstance(node.operation, Elementwise)
        return fusible and self.readers[name] == 1 and name not in self.leaving

    def _continue(self, node: Node) -> Program:
        main = self.mains[node.name]
        program = self.open.pop(main, None)
        if program is None:
            program = Program(node.name, self.steps[main], (), node.name, node.shape)
        operation = node.operation
        added: Affine | Apply | Joined
        if isinstance(operation, Affine | Apply):
            added = operation
        elif isinstance(operation, Add | Multiply):
            first, second = node.sources
            operand = second if first == main else first
            added = Joined(operation, self.steps[operand])
        else:
            raise ModelError(f"{node.name!r} is not elementwise")
        return replace(program, operations=(*program.operations, added), node=node.name, shape=node.shape)

    def _advance(self, node: Node, program: Program) -> None:
        """Leaves the program open for its only reader, or ends it here."""
        if self._can_stay_open(node.name) and self._sole_reader_continues(node.name):
            self.open[node.name] = program
            return
        only_leaves = node.name in self.leaving and not self._is_read(node.name)
        if program.root is not None:
            self.drafts.append(program.root)
        self.drafts.append(replace(program, is_real=only_leaves))
        if only_leaves:
            self.real_steps[node.name] = program.name
            return
        self.steps[node.name] = program.name
        self._export(node)

    def _place(self, node: Node) -> None:
        """A step of its own. Softmax gives reals where nothing inside the network reads them."""
        sources = tuple(self.steps[source] for source in node.sources)
        is_real = isinstance(node.operation, Softmax) and node.name in self.leaving and not self._is_read(node.name)
        self.drafts.append(Direct(node.name, sources, node, is_real))
        if is_real:
            self.real_steps[node.name] = node.name
            return
        self.steps[node.name] = node.name
        self._export(node)

    def _export(self, node: Node) -> None:
        """A step that gives an activation as reals, where the network gives it."""
        if node.name in self.leaving:
            step = self.steps[node.name]
            self.drafts.append(Program(f"{step}.output", step, (), node.name, node.shape, is_real=True))
            self.real_steps[node.name] = f"{step}.output"

    def _is_read(self, name: str) -> bool:
        return self.readers[name] > sum(name == output for output, _ in self.graph.outputs)

    def _sole_reader_continues(self, name: str) -> bool:
        return any(main == name for main in self.mains.values())


def _count(graph: FloatGraph, name: str) -> int:
    count = 1
    for extent in graph.nodes[name].shape:
        count *= extent
    return count
