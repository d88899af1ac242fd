"""Who reads which value: what must be hidden or checked on its way to the device, and when a value can be forgotten."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from slalom.plan.steps import Graph, Linear
from slalom.plan.validation import sources_of


@dataclass(frozen=True)
class Flow:
    """`consumers`: for each value that linear steps read, those steps in order. `last_reader`: the index of the last
    step that reads a value (the number of steps for an output). `kept`: values that somebody else than a linear step
    reads."""

    consumers: Mapping[str, tuple[Linear, ...]]
    last_reader: Mapping[str, int]
    kept: frozenset[str]

    def forgotten_after(self, index: int) -> tuple[str, ...]:
        """The values that no step after `index` reads."""
        return tuple(name for name, last in self.last_reader.items() if last == index)


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
    return Flow({name: tuple(steps) for name, steps in consumers.items()}, last_reader, kept)
