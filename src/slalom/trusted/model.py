"""The plan as the trusted side keeps it: the graph and the epilogue's parameters, never the weights."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from slalom.arithmetic.pointwise import Program, Requantisation, prepare_program, prepare_requantisation
from slalom.plan import Plan
from slalom.plan.flow import Flow, trace_flow
from slalom.plan.steps import Graph, Linear, Pointwise, Shape, ValueType


@dataclass(frozen=True)
class TrustedModel:
    """Everything but the weights. `linear_steps` are in plan order; `programs` are the pointwise steps prepared."""

    digest: str
    graph: Graph
    types: Mapping[str, ValueType]
    flow: Flow
    programs: Mapping[str, Program]
    linear_steps: Mapping[str, Linear]

    @property
    def input_requantisation(self) -> Requantisation:
        """How the user's numbers become the input activation."""
        return prepare_requantisation(self.graph.input.output)

    def shape(self, name: str) -> Shape:
        """The item shape of a value."""
        return self.types[name].shape

    def count(self, name: str) -> int:
        """The elements of one item of a value."""
        return math.prod(self.types[name].shape)


def make_model(plan: Plan) -> TrustedModel:
    """Copies out of a plan what the trusted side keeps; the plan itself can be dropped afterwards."""
    parameters = {name: tensor.copy() for name, tensor in plan.tensors.items() if tensor.dtype == np.float32}
    programs = {
        step.name: prepare_program(step, parameters, plan.types)
        for step in plan.graph.steps
        if isinstance(step, Pointwise)
    }
    linear_steps = {step.name: step for step in plan.graph.steps if isinstance(step, Linear)}
    return TrustedModel(plan.digest, plan.graph, dict(plan.types), trace_flow(plan.graph), programs, linear_steps)
