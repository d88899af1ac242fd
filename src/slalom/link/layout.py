"""What a plan says of a conversation about it: which shapes cross and how, and how many claims are open at once.

Either side makes it from its own plan. Nothing in it comes from a peer.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from slalom.arithmetic.fused import PACKED_LIMIT
from slalom.link.message import Geometry
from slalom.link.region import page_ceiling
from slalom.plan import Plan
from slalom.plan.flow import Flow, trace_flow, whole_rows
from slalom.plan.footprint import NO_FOOTPRINT, TURNS, Footprint, gpu_footprint
from slalom.plan.steps import Graph, Linear, Shape
from slalom.plan.validation import sources_of

_WORD_SIZE = 4  # no element that crosses is larger
_AHEAD_CLAIMS = 12  # that wait for the trusted side while the device runs ahead
_PIECE_COUNT, _FEW_PIECES = 8, 4  # powers of two: places for claims where many threads read them, and few
_PIECE_SIZE = 2**23  # eight of them stay in the caches of a processor with some 100 MB or more (decision 0022)
_WORD_COUNT = 4  # places for words, which go past the caches; none where few threads write them (decision 0026)
_MANY_THREADS = 4
_GRAIN = 1024  # elements: the tiles of the fused pass
_STREAMED_PARTS = 2 * TURNS  # micro-batches beyond which the device waits for a recording that waits for the pass
_QUEUED_PIECES = 300  # of claims under way at once, three calls each: a stream of a GPU takes some thousand


@dataclass(frozen=True)
class Layout:
    """The linear steps in plan order with the shapes of what they read and give, the input, the outputs.

    `open_claims`: the most claims of one micro-batch that are asked for and not yet used; `open_placed`: of them, those
    that do not go through the ring where the device is asked step by step. `streams_ahead` and
    `streams_asked`: the steps whose claims can go through the ring, where the device runs ahead and where it is asked
    step by step: whoever waits for a later claim has read them. `grains`: what a piece is a multiple of, in elements.
    `footprint`: what the plan takes of a GPU's memory.
    """

    digest: bytes
    steps: tuple[Linear, ...]
    sources: Mapping[str, Shape]
    input_shape: Shape
    output_shapes: tuple[Shape, ...]
    open_claims: int
    open_placed: int
    streams_ahead: frozenset[int] = frozenset()
    streams_asked: frozenset[int] = frozenset()
    grains: tuple[int, ...] = ()
    footprint: Footprint = NO_FOOTPRINT

    def packs(self, position: int) -> bool:
        """Whether the range proof leaves a claim of this step three bytes, where it is a plain accumulator."""
        return self.steps[position].output.bound < PACKED_LIMIT

    @cached_property
    def positions(self) -> Mapping[str, int]:
        """The place of each linear step in the plan's order."""
        return {step.name: index for index, step in enumerate(self.steps)}

    def geometry(
        self,
        batch: int,
        micro_batches: int,
        *,
        streams: bool = False,
        words: bool = False,
        threads: int = _MANY_THREADS,
    ) -> Geometry:
        """Slots for `micro_batches` parts of at most `batch` items in flight; with a ring, where claims stream, and one
        more where words do too. `threads`: of the trusted side."""
        asked = [self.input_shape, *self.sources.values()]
        streamed = self.streams_ahead & self.streams_asked if streams else frozenset()
        claimed = [step.output.shape for position, step in enumerate(self.steps) if position not in streamed]
        answered = [*claimed, *self.output_shapes]
        grains = [min(self.grains[position], self._count(position)) for position in streamed]
        words, places = words and threads >= _MANY_THREADS, _PIECE_COUNT if threads >= _MANY_THREADS else _FEW_PIECES
        grains += [_GRAIN] if words and streamed else []
        waiting = self.open_placed if streamed else self.open_claims
        piece_size = page_ceiling(max(_PIECE_SIZE, batch * _WORD_SIZE * max(grains))) if streamed else 0
        ahead = 0 if len(streamed) and len(self.streams_ahead) == len(self.steps) else _AHEAD_CLAIMS
        return Geometry(
            # one more where the words of an ask are read until its last piece is, while the next are written already
            ask_count=micro_batches + 1 + bool(streamed),
            # twice: those a walk has open, and as many that its next ask adds while the last are still held
            claim_count=2 * micro_batches * max(waiting, len(self.output_shapes)) + ahead,
            ask_size=page_ceiling(batch * _WORD_SIZE * max(math.prod(shape) for shape in asked)),
            claim_size=page_ceiling(batch * _WORD_SIZE * max(math.prod(shape) for shape in answered)),
            piece_count=places if streamed else 0,
            piece_size=piece_size,
            word_count=_WORD_COUNT if words and self._words_stream(batch, micro_batches, piece_size) else 0,
        )

    def span(self, position: int, batch: int, width: int, piece_size: int) -> int:
        """Elements of each item in a piece of a step's claim, `width` bytes each; 0 where a piece is too small."""
        count, room = self._count(position), piece_size // (batch * width)
        return count if count <= room else room // self.grains[position] * self.grains[position]

    def word_span(self, count: int, batch: int, piece_size: int) -> int:
        """Elements of each item in a piece of the words [batch, count] of an ask: cut as a claim of as many is."""
        room = piece_size // (batch * _WORD_SIZE)
        return count if count <= room else room // _GRAIN * _GRAIN

    def _words_stream(self, batch: int, micro_batches: int, piece_size: int) -> bool:
        """Whether a device can take words in pieces: all that is asked of it meanwhile must find room in its queues."""
        if not piece_size or micro_batches > _STREAMED_PARTS:
            return False
        spans = ((self._count(p), self.span(p, batch, _WORD_SIZE, piece_size)) for p in self.streams_asked)
        return micro_batches * max((-(-count // span) for count, span in spans if span), default=0) <= _QUEUED_PIECES

    def _count(self, position: int) -> int:
        return math.prod(self.steps[position].output.shape)


def make_layout(plan: Plan) -> Layout:
    """The layout of a plan; keeps none of its tensors."""
    graph, flow = plan.graph, trace_flow(plan.graph)
    steps = tuple(step for step in graph.steps if isinstance(step, Linear))
    grains = tuple(_grain_of(step, graph, flow) for step in steps)
    streams_asked = streamed_asked(graph, flow, grains)
    return Layout(
        digest=bytes.fromhex(plan.digest),
        steps=steps,
        sources={step.name: plan.types[step.source].shape for step in steps},
        input_shape=graph.input.output.shape,
        output_shapes=tuple(plan.types[output.source].shape for output in graph.outputs),
        open_claims=most_open_claims(graph, flow),
        open_placed=most_open_claims(graph, flow, {steps[position].name for position in streams_asked}),
        streams_ahead=streamed_ahead(graph, grains),
        streams_asked=streams_asked,
        grains=grains,
        footprint=gpu_footprint(plan),
    )


def most_open_claims(graph: Graph, flow: Flow, others: Collection[str] = ()) -> int:
    """The most linear steps whose source has left and whose claim is still to be read, while a plan is walked.

    Those of `others` are not counted.
    """
    opened = _asked_with(graph.input.name, flow, others)
    most = len(opened)
    for step in graph.steps:
        if isinstance(step, Linear):
            continue
        read = opened & set(sources_of(step))
        opened |= _asked_with(step.name, flow, others)
        most = max(most, len(opened))  # what the step reads is let go only once the step is done
        opened -= read
    return most


def _asked_with(name: str, flow: Flow, others: Collection[str]) -> set[str]:
    return {step.name for step in flow.consumers.get(name, ()) if step.name not in others}


def streamed_ahead(graph: Graph, grains: Sequence[int]) -> frozenset[int]:
    """Positions of the steps whose claim is read before that of every later step.

    Claims leave the device one after another. One that goes through the ring holds up those behind it until it is read,
    so nobody may need one of them first.
    """
    readers, found, earliest = _readers(graph), set(), len(graph.steps)
    steps = [step for step in graph.steps if isinstance(step, Linear)]
    for position in reversed(range(len(steps))):
        reader = readers.get(steps[position].name, len(graph.steps))
        if reader < earliest and grains[position]:
            found.add(position)
        earliest = min(earliest, reader)
    return frozenset(found)


def streamed_asked(graph: Graph, flow: Flow, grains: Sequence[int]) -> frozenset[int]:
    """Positions of the steps whose claim is read before anything more is asked for, in the order of the ask."""
    readers = _readers(graph)
    made = {graph.input.name: -1} | {step.name: index for index, step in enumerate(graph.steps)}
    asks = sorted(made[name] for name in flow.consumers)
    positions = {step.name: index for index, step in enumerate(s for s in graph.steps if isinstance(s, Linear))}
    found: set[int] = set()
    for name, consumers in flow.consumers.items():
        following = min((index for index in asks if index > made[name]), default=len(graph.steps))
        last = -1
        for step in consumers:
            reader, position = readers.get(step.name, len(graph.steps) + 1), positions[step.name]
            if last < reader <= following and grains[position]:
                found.add(position)
                last = reader
    return frozenset(found)


def _readers(graph: Graph) -> dict[str, int]:
    """For each linear step, the index of the step that reads its claim."""
    linear = {step.name for step in graph.steps if isinstance(step, Linear)}
    return {source: index for index, step in enumerate(graph.steps) for source in sources_of(step) if source in linear}


def _grain_of(linear: Linear, graph: Graph, flow: Flow) -> int:
    """What a piece of a claim is a multiple of, in elements: a tile, or the rows of a window; 0 where these differ."""
    reader = next((step for step in graph.steps if linear.name in sources_of(step)), None)
    pool = None if reader is None else flow.pooled.get(reader.name)
    return _GRAIN if pool is None else whole_rows(pool, linear.output.shape)
