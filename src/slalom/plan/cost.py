"""What each step costs: multiply-accumulates, bytes across the boundary, and the room its range proof leaves."""

from __future__ import annotations

import math
from dataclasses import dataclass

from slalom.plan.flow import Flow, trace_flow
from slalom.plan.plan import Plan
from slalom.plan.shapes import map_output_shape, multiply_accumulates
from slalom.plan.steps import ACCUMULATOR_LIMIT, Accumulator, Activation, Linear, Shape, Step

CLAIM_SIZE = 4  # bytes of one element of a claim, a mask or a blinded word
ACTIVATION_SIZE = 2


@dataclass(frozen=True)
class StepCost:
    """One step. `bits`: of the activation it gives, None for sums and floats. `slack_bits`: log2 of the limit over the
    proved bound, None where nothing is proved. Bytes are per image, for values that cross step by step."""

    name: str
    kind: str
    shape: Shape
    multiply_accumulates: int
    bits: int | None
    slack_bits: float | None
    bytes_from_device: int
    bytes_to_device: int


def step_costs(plan: Plan) -> tuple[StepCost, ...]:
    """Every step of a plan in order; the input comes first, since it crosses the boundary too."""
    flow = trace_flow(plan.graph)
    entry = plan.graph.input
    first = StepCost(
        entry.name, "Input", entry.output.shape, 0, entry.output.bits, None, 0, _sent(plan, entry.name, flow)
    )
    return (first, *(_cost(plan, step, flow) for step in plan.graph.steps))


def _cost(plan: Plan, step: Step, flow: Flow) -> StepCost:
    bound = step.output.bound if isinstance(step.output, Accumulator) else 0
    return StepCost(
        name=step.name,
        kind=type(step).__name__,
        shape=step.output.shape,
        multiply_accumulates=_work(plan, step) if isinstance(step, Linear) else 0,
        bits=step.output.bits if isinstance(step.output, Activation) else None,
        slack_bits=math.log2(ACCUMULATOR_LIMIT / bound) if bound else None,
        bytes_from_device=math.prod(step.output.shape) * CLAIM_SIZE if isinstance(step, Linear) else 0,
        bytes_to_device=_sent(plan, step.name, flow),
    )


def _work(plan: Plan, step: Linear) -> int:
    shape, total = plan.types[step.source].shape, 0
    for linear_map in step.maps:
        weight_shape = plan.tensors[linear_map.weight].shape
        total += multiply_accumulates(linear_map, weight_shape, shape)
        shape = map_output_shape(linear_map, weight_shape, shape)
    return total


def _sent(plan: Plan, name: str, flow: Flow) -> int:
    return math.prod(plan.types[name].shape) * CLAIM_SIZE if name in flow.consumers else 0
