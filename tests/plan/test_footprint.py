"""What a plan is said to take of a GPU's memory, against its tensors counted one by one."""

from __future__ import annotations

import math

import pytest

from slalom.plan.flow import trace_flow
from slalom.plan.footprint import gpu_footprint
from slalom.plan.steps import Linear
from tests.devices import GRAPH_NAMES, plan_of


@pytest.mark.parametrize("name", GRAPH_NAMES)
def test_it_covers_two_of_every_word_that_crosses_and_the_weights(name: str) -> None:
    plan, flow = plan_of(name), trace_flow(plan_of(name).graph)
    up = sum(math.prod(plan.types[value].shape) for value in flow.consumers)
    down = sum(math.prod(step.output.shape) for step in plan.graph.steps if isinstance(step, Linear))
    found = gpu_footprint(plan)
    assert found.per_image >= 2 * 4 * (up + down)
    assert found.weights >= sum(tensor.nbytes for tensor in plan.tensors.values())
    assert found.total(7) == found.weights + found.recordings(7)
    assert found.recordings(8) - found.recordings(7) == found.per_image


def test_maps_that_are_chained_are_counted_each() -> None:
    plan = plan_of("every_step")
    chained = [step for step in plan.graph.steps if isinstance(step, Linear) and len(step.maps) > 1]
    assert chained, "a graph with a chain"
    least = sum(2 * math.prod(step.output.shape) for step in chained)  # what is between, and what is given
    assert gpu_footprint(plan).per_image >= 2 * 4 * least
