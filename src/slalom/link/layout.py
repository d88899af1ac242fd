"""What a plan says of a conversation about it: which shapes cross, and how many claims are open at once.

Either side makes it from its own plan. Nothing in it comes from a peer.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from slalom.arithmetic.fused import PACKED_LIMIT
from slalom.link.message import Geometry
from slalom.link.region import page_ceiling
from slalom.plan import Plan
from slalom.plan.flow import Flow, trace_flow
from slalom.plan.steps import Graph, Linear, Shape
from slalom.plan.validation import sources_of

_WORD_SIZE = 4  # no element that crosses is larger
_AHEAD_CLAIMS = 12  # that wait for the trusted side while the device runs ahead


@dataclass(frozen=True)
class Layout:
    """The linear steps in plan order with the shapes of what they read and give, the input, the outputs.

    `open_claims`: the most claims of one micro-batch that are asked for and not yet used.
    """

    digest: bytes
    steps: tuple[Linear, ...]
    sources: Mapping[str, Shape]
    input_shape: Shape
    output_shapes: tuple[Shape, ...]
    open_claims: int

    def packs(self, position: int) -> bool:
        """Whether the range proof leaves a claim of this step three bytes, where it is a plain accumulator."""
        return self.steps[position].output.bound < PACKED_LIMIT

    @cached_property
    def positions(self) -> Mapping[str, int]:
        """The place of each linear step in the plan's order."""
        return {step.name: index for index, step in enumerate(self.steps)}

    def geometry(self, batch: int, micro_batches: int) -> Geometry:
        """Slots for `micro_batches` parts of at most `batch` items in flight."""
        asked = [self.input_shape, *self.sources.values()]
        answered = [*(step.output.shape for step in self.steps), *self.output_shapes]
        return Geometry(
            ask_count=micro_batches + 1,
            # twice: those a walk has open, and as many that its next ask adds while the last are still held
            claim_count=2 * micro_batches * max(self.open_claims, len(self.output_shapes)) + _AHEAD_CLAIMS,
            ask_size=page_ceiling(batch * _WORD_SIZE * max(math.prod(shape) for shape in asked)),
            claim_size=page_ceiling(batch * _WORD_SIZE * max(math.prod(shape) for shape in answered)),
        )


def make_layout(plan: Plan) -> Layout:
    """The layout of a plan; keeps none of its tensors."""
    graph = plan.graph
    steps = tuple(step for step in graph.steps if isinstance(step, Linear))
    return Layout(
        digest=bytes.fromhex(plan.digest),
        steps=steps,
        sources={step.name: plan.types[step.source].shape for step in steps},
        input_shape=graph.input.output.shape,
        output_shapes=tuple(plan.types[output.source].shape for output in graph.outputs),
        open_claims=most_open_claims(graph, trace_flow(graph)),
    )


def most_open_claims(graph: Graph, flow: Flow) -> int:
    """The most linear steps whose source has left and whose claim is still to be read, while a plan is walked."""
    opened = {step.name for step in flow.consumers.get(graph.input.name, ())}
    most = len(opened)
    for step in graph.steps:
        if isinstance(step, Linear):
            continue
        read = opened & set(sources_of(step))
        opened |= {consumer.name for consumer in flow.consumers.get(step.name, ())}
        most = max(most, len(opened))  # what the step reads is let go only once the step is done
        opened -= read
    return most
