"""What a plan takes of a GPU's memory, from the plan alone: weights that stay, and room for every recorded exchange.

A recording keeps its source and every result (`device.recording`), and there are two of each, which take turns. What is
said here is an upper bound: tensors that share memory are counted as if they did not, and the allocator's blocks whole.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from slalom.plan.flow import trace_flow
from slalom.plan.plan import Plan
from slalom.plan.shapes import chain_geometries
from slalom.plan.steps import Accumulator, Activation, Linear, Real

TURNS = 2  # recordings of one exchange and one batch size
_BLOCK = 22 * 2**20  # what the allocator may hold beyond the tensors of a recording: a segment for small, one for large
_PADDING = 2  # weights are padded to whole tiles; small layers double
_WORD, _SHORT = 4, 2


@dataclass(frozen=True)
class Footprint:
    """Bytes on a GPU: `weights`, and for recordings `per_image` of a micro-batch and `fixed` beside it."""

    weights: int
    per_image: int
    fixed: int

    def total(self, images: int) -> int:
        """Of a worker that serves micro-batches of so many images."""
        return self.weights + self.recordings(images)

    def recordings(self, images: int) -> int:
        """What comes to the weights once exchanges of so many images are recorded."""
        return self.fixed + self.per_image * images


NO_FOOTPRINT = Footprint(0, 0, 0)


def gpu_footprint(plan: Plan) -> Footprint:
    """The larger of what a network run ahead takes, and all its exchanges step by step."""
    weights = sum(tensor.nbytes for tensor in plan.tensors.values())
    flow = trace_flow(plan.graph)
    linear = {step.name: step for step in plan.graph.steps if isinstance(step, Linear)}
    asked = 0
    for value, consumers in flow.consumers.items():
        asked += _WORD * (math.prod(plan.types[value].shape) + sum(_made(plan, step) for step in consumers))
    ahead = sum(_made(plan, step) * _WORD for step in linear.values())
    ahead += sum(_size(kind) for name, kind in plan.types.items() if name not in linear)
    return Footprint(_PADDING * weights, TURNS * max(asked, ahead), TURNS * len(flow.consumers) * _BLOCK)


def _made(plan: Plan, step: Linear) -> int:
    """Elements that a linear step writes for an image: of every map of its chain, and of the claim as it is packed."""
    geometries = chain_geometries(step.maps, plan.tensors, plan.types[step.source].shape)
    return sum(math.prod(geometry.output_shape) for geometry in geometries) + math.prod(step.output.shape)


def _size(kind: Activation | Accumulator | Real) -> int:
    return math.prod(kind.shape) * (_SHORT if isinstance(kind, Activation) else _WORD)
