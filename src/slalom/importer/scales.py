"""One scale and one count of bits for all values that share integers.

A maximum, a move or a concatenation passes integers on unchanged, so its sources and its result are one class.
"""

from __future__ import annotations

from collections.abc import Mapping

from slalom.errors import ModelError
from slalom.importer.chain import Chain
from slalom.importer.fuse import Direct, Draft, Program, Schedule, makes_accumulator
from slalom.importer.graph import FloatGraph, Pool, Softmax
from slalom.importer.options import CompileOptions
from slalom.importer.quantise import activation_scale, bits_within
from slalom.plan.ranges import largest_window


class Classes:
    """Union-find over the values that are activations; the class of a value is named by its earliest member."""

    def __init__(self) -> None:
        self._parents: dict[str, str] = {}

    def find(self, name: str) -> str:
        """The class of a value."""
        parent = self._parents.setdefault(name, name)
        while parent != self._parents[parent]:
            parent = self._parents[parent]
        self._parents[name] = parent
        return parent

    def join(self, first: str, second: str) -> None:
        """Makes two values share their integers."""
        self._parents[self.find(second)] = self.find(first)


def choose_scales(
    graph: FloatGraph,
    schedule: Schedule,
    chains: Mapping[str, Chain],
    ranges: Mapping[str, float],
    options: CompileOptions,
) -> dict[str, tuple[float, int]]:
    """Scale and bits of every activation, by step. Raises ModelError naming a step that leaves too few bits."""
    classes = _classify(schedule)
    values = {graph.input: graph.input} | {
        draft.name: _node_name(draft) for draft in schedule.drafts if _is_activation(draft)
    }
    reaches: dict[str, float] = {}
    for step, node in values.items():
        name = classes.find(step)
        reaches[name] = max(reaches.get(name, 0.0), graph.reach(node, ranges))
    bits = _choose_bits(schedule, chains, classes, options)
    chosen: dict[str, tuple[float, int]] = {}
    for step in values:
        name = classes.find(step)
        count = bits.get(name, options.activation_bits)
        chosen[step] = (activation_scale(reaches[name], count), count)
    return chosen


def _classify(schedule: Schedule) -> Classes:
    classes = Classes()
    for draft in schedule.drafts:
        if isinstance(draft, Direct) and _is_activation(draft) and not isinstance(draft.node.operation, Softmax):
            for source in draft.sources:
                classes.join(source, draft.name)
    return classes


def _choose_bits(
    schedule: Schedule, chains: Mapping[str, Chain], classes: Classes, options: CompileOptions
) -> dict[str, int]:
    """The fewest bits that any reader of a class leaves it."""
    bits: dict[str, int] = {}
    for draft in schedule.drafts:
        if not isinstance(draft, Direct) or not makes_accumulator(draft.node):
            continue
        bound = _bound(draft, chains)
        possible = bits_within(bound)
        if possible < options.minimum_bits:
            raise ModelError(
                f"step {draft.name!r}: its sums reach {bound} times the input, which leaves {possible} activation bits "
                f"in 32; at least {options.minimum_bits} are wanted",
                hint="split the layer, or lower weight_bits or minimum_bits",
            )
        name = classes.find(draft.sources[0])
        bits[name] = min(possible, bits.get(name, options.activation_bits))
    return bits


def _bound(draft: Direct, chains: Mapping[str, Chain]) -> int:
    operation = draft.node.operation
    if isinstance(operation, Pool):
        return largest_window(operation.rows) * largest_window(operation.columns)
    return chains[draft.node.name].bound


def _is_activation(draft: Draft) -> bool:
    return not draft.is_real and not (isinstance(draft, Direct) and makes_accumulator(draft.node))


def _node_name(draft: Draft) -> str:
    return draft.node if isinstance(draft, Program) else draft.node.name
