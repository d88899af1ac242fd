"""An honest device in NumPy alone, for tests that must not need torch, and the plans and images that tests share."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

import reference.network
from slalom.arithmetic.dispatch import Isa, make_dispatch
from slalom.arithmetic.fused import PassInput, run_pass
from slalom.arithmetic.linear import apply_maps
from slalom.arithmetic.moves import apply_move
from slalom.arithmetic.pointwise import prepare_program
from slalom.arithmetic.pooling import pool
from slalom.link.port import Claim
from slalom.plan import Plan
from slalom.plan.steps import Linear, Pointwise, Pool, Step
from slalom.plan.validation import sources_of
from tests import graphs

GRAPH_NAMES = tuple(make.__name__.removesuffix("_graph") for make in graphs.ALL_GRAPHS)


@cache
def plan_of(name: str) -> Plan:
    """The plan of a hand-built graph."""
    return Plan(*getattr(graphs, f"{name}_graph")())


@cache
def case_of(name: str, batch: int, seed: int = 0) -> tuple[NDArray[np.float32], tuple[NDArray[np.float32], ...]]:
    """Images for a hand-built graph, and the outputs that the reference gives for them."""
    plan = plan_of(name)
    x = graphs.images(plan.graph, batch, seed)
    return x, tuple(reference.network.run(plan.graph, dict(plan.tensors), x))


def linear_steps_of(name: str) -> list[str]:
    """The names of a graph's linear steps, in order."""
    return [step.name for step in plan_of(name).graph.steps if isinstance(step, Linear)]


def as_tuple(outputs: Any) -> tuple[NDArray[np.float32], ...]:
    """One output or several, as several."""
    return outputs if isinstance(outputs, tuple) else (outputs,)


def same(outputs: Any, expected: Sequence[NDArray[Any]]) -> bool:
    """Whether all outputs are equal in type, shape and every bit."""
    given = as_tuple(outputs)
    return len(given) == len(expected) and all(
        a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == np.ascontiguousarray(b).tobytes()
        for a, b in zip(given, expected, strict=True)
    )


class NumpyDevice:
    """Honest; a test that wants a lie overrides `linear`, which makes every claim, or a whole method of the port."""

    def load(self, plan: Plan) -> None:
        self.plan = plan
        self.linear_steps = {step.name: step for step in plan.graph.steps if isinstance(step, Linear)}
        self._dispatch = make_dispatch(Isa.NUMPY, threads=1)

    def linear(self, step: Linear, words: NDArray[Any]) -> NDArray[Any]:
        return apply_maps(step.maps, self.plan.tensors, words)

    def compute(self, step_names: Sequence[str], words: NDArray[Any]) -> Sequence[NDArray[Any]]:
        return [self.linear(self.linear_steps[name], words) for name in step_names]

    def run_ahead(self, activation: NDArray[np.int16]) -> Iterator[Claim]:
        values: dict[str, NDArray[Any]] = {self.plan.graph.input.name: activation}
        for step in self.plan.graph.steps:
            values[step.name] = self._value(step, values)
            if isinstance(step, Linear):
                yield Claim(step.name, values[step.name])
        self.outputs = [values[output.source] for output in self.plan.graph.outputs]

    def run(self, activation: NDArray[np.int16]) -> Sequence[NDArray[np.float32]]:
        for _ in self.run_ahead(activation):
            pass
        return self.outputs

    def close(self) -> None:
        pass

    def _value(self, step: Step, values: dict[str, NDArray[Any]]) -> NDArray[Any]:
        sources = [values[name] for name in sources_of(step)]
        if isinstance(step, Linear):
            return self.linear(step, sources[0])
        if isinstance(step, Pool):
            return pool(self._dispatch, step, sources[0])
        if not isinstance(step, Pointwise):
            return np.ascontiguousarray(apply_move(step, sources, self.plan.types))
        rows = [source.reshape(len(source), -1) for source in sources]
        operands = dict(zip(sources_of(step)[1:], rows[1:], strict=True))
        program = prepare_program(step, self.plan.tensors, self.plan.types)
        given = PassInput(np.ascontiguousarray(rows[0]), None, (), program, operands, (), None)
        return run_pass(self._dispatch, given).values.reshape(len(rows[0]), *step.output.shape)
