"""What hiding one image costs, from the plan alone: the masks that it uses up, and the work of making them."""

from __future__ import annotations

import math
from dataclasses import dataclass

from slalom.plan.cost import CLAIM_SIZE, step_costs
from slalom.plan.flow import trace_flow
from slalom.plan.plan import Plan
from slalom.plan.steps import Linear

SEED_SIZE = 32  # as arithmetic.keystream has it
BYTE_PRODUCTS = 4  # of int8 for each weight and masked word of four bytes


@dataclass(frozen=True)
class MaskCost:
    """For each image: bytes of masks and of mask images, and the products of int8 numbers that make the images.

    `seeds`: bytes that stand for the masks of a micro-batch, whatever its size.
    """

    masks: int
    images: int
    products: int
    seeds: int

    @property
    def total(self) -> int:
        """Bytes that wait in the bank."""
        return self.masks + self.images


def mask_cost(plan: Plan) -> MaskCost:
    """A mask for every value that a linear step reads, an image for every linear step."""
    values = trace_flow(plan.graph).consumers
    hidden = sum(math.prod(plan.types[value].shape) for value in values)
    claims = sum(math.prod(step.output.shape) for step in plan.graph.steps if isinstance(step, Linear))
    work = sum(cost.multiply_accumulates for cost in step_costs(plan))
    return MaskCost(hidden * CLAIM_SIZE, claims * CLAIM_SIZE, work * BYTE_PRODUCTS, len(values) * SEED_SIZE)
