"""Who reads which value: what must be hidden or checked on its way to the device, and when a value can be forgotten."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from slalom.plan.steps import Activation, Graph, Linear, Pointwise, Pool, Reduction, Shape, Window
from slalom.plan.validation import sources_of


@dataclass(frozen=True)
class Flow:
    """`consumers`: for each value that linear steps read, those steps in order. `last_reader`: the index of the last
    step that reads a value (the number of steps for an output). `kept`: values that somebody else than a linear step
    reads. `pooled`: for each pointwise value that nobody reads but one maximum pool, whose windows take the rows one
    after another, that pool: a pass can write the maxima alone."""

    consumers: Mapping[str, tuple[Linear, ...]]
    last_reader: Mapping[str, int]
    kept: frozenset[str]
    pooled: Mapping[str, Pool]

    def forgotten_after(self, index: int) -> tuple[str, ...]:
        """The values that no step after `index` reads."""
        return self._last_reads.get(index, ())

    @cached_property
    def _last_reads(self) -> Mapping[int, tuple[str, ...]]:
        found: dict[int, tuple[str, ...]] = {}
        for name, last in self.last_reader.items():
            found[last] = (*found.get(last, ()), name)
        return found


def trace_flow(graph: Graph) -> Flow:
    """The flow of a valid graph."""
    consumers: dict[str, list[Linear]] = {}
    last_reader: dict[str, int] = {}
    for index, step in enumerate(graph.steps):
        for source in sources_of(step):
            last_reader[source] = index
        if isinstance(step, Linear):
            consumers.setdefault(step.source, []).append(step)
    for output in graph.outputs:
        last_reader[output.source] = len(graph.steps)
    others = {source for step in graph.steps if not isinstance(step, Linear) for source in sources_of(step)}
    kept = frozenset(others | {output.source for output in graph.outputs})
    return Flow({name: tuple(steps) for name, steps in consumers.items()}, last_reader, kept, _find_pooled(graph))


def _find_pooled(graph: Graph) -> dict[str, Pool]:
    made = {step.name: step.output for step in graph.steps if isinstance(step, Pointwise)}
    readers = Counter(source for step in graph.steps for source in sources_of(step))
    readers.update(output.source for output in graph.outputs)
    found: dict[str, Pool] = {}
    for step in graph.steps:
        if isinstance(step, Pool) and step.reduction is Reduction.MAXIMUM and readers[step.source] == 1:
            source = made.get(step.source)
            if isinstance(source, Activation) and rows_follow(step.rows, source.shape[0]):
                found[step.source] = step
    return found


def rows_follow(rows: Sequence[Window], extent: int) -> bool:
    """Whether the windows take rows 0..extent one after another, each row once."""
    edges = [0, *(window.stop for window in rows)]
    starts = [*(window.start for window in rows), extent]
    return edges == starts and all(window.step == 1 for window in rows)


def whole_rows(step: Pool, shape: Shape) -> int:
    """Elements of an image [H, W, C] that one output row of a pool reads, where all read as many; else 0.

    For pools whose windows take the rows one after another: a multiple of it never ends within a window.
    """
    extents = {window.stop - window.start for window in step.rows}
    return extents.pop() * shape[1] * shape[2] if len(extents) == 1 else 0
