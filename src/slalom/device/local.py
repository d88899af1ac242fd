"""A device in this process: the torch engine for the linear steps, and a mirror of everything between them.

The mirror is the trusted side's own arithmetic, so it agrees bit for bit by construction. A device with kernels of
its own must be made to agree, and tested for it.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from slalom.arithmetic.dispatch import Dispatch, make_dispatch
from slalom.arithmetic.fused import PassInput, run_pass
from slalom.arithmetic.linear import Words
from slalom.arithmetic.moves import apply_move
from slalom.arithmetic.pointwise import Program, prepare_program
from slalom.arithmetic.pooling import pool
from slalom.device.engine import PreparedMaps, TorchEngine
from slalom.errors import ApiMisuse
from slalom.link.port import Claim
from slalom.plan import Plan
from slalom.plan.flow import Flow, trace_flow
from slalom.plan.steps import Linear, Pointwise, Pool, Step
from slalom.plan.validation import sources_of

Values = dict[str, NDArray[Any]]


@dataclass(frozen=True, eq=False)
class LoadedPlan:
    """A plan as the device keeps it: weights in the engine's form, epilogues prepared."""

    plan: Plan
    flow: Flow
    maps: dict[str, PreparedMaps]
    programs: dict[str, Program]
    linear_steps: dict[str, Linear]


class LocalDevice:
    """A `DevicePort` on torch's CPU.

    `threads` sets torch's number of threads, which is the whole process's; None leaves it as it is. `engine` is one
    to share. Raises DeviceError where the processor offers no exact product.
    """

    def __init__(self, threads: int | None = None, engine: TorchEngine | None = None) -> None:
        self._dispatch: Dispatch = make_dispatch(threads=threads)
        if threads is not None:
            torch.set_num_threads(threads)
        self.engine = engine or TorchEngine()
        self._loaded: LoadedPlan | None = None

    @property
    def loaded(self) -> LoadedPlan:
        """The plan being served. Raises ApiMisuse before `load` and after `close`."""
        if self._loaded is None:
            raise ApiMisuse("the device has no plan", hint="call load first")
        return self._loaded

    def load(self, plan: Plan) -> None:
        """Packs the weights and prepares the epilogues of a plan, which replaces the one before."""
        steps = plan.graph.steps
        linear_steps = {step.name: step for step in steps if isinstance(step, Linear)}
        maps = {
            step.name: self.engine.prepare(step.maps, plan.tensors, plan.types[step.source].shape)
            for step in linear_steps.values()
        }
        programs = {
            step.name: prepare_program(step, plan.tensors, plan.types) for step in steps if isinstance(step, Pointwise)
        }
        self._loaded = LoadedPlan(plan, trace_flow(plan.graph), maps, programs, linear_steps)

    def run_ahead(self, activation: NDArray[np.int16]) -> Iterator[Claim]:
        """The claim of every linear step, in plan order, each as soon as it is ready; see `DevicePort`.

        Raises ApiMisuse for another shape or dtype.
        """
        return self._walk(self._check_activation(activation))

    def compute(self, step_names: Sequence[str], words: Words) -> Sequence[NDArray[np.int32]]:
        """The claims of linear steps that read one value; see `DevicePort`. Raises ApiMisuse for an unknown step."""
        unknown = [name for name in step_names if name not in self.loaded.linear_steps]
        if unknown:
            raise ApiMisuse(f"the plan has no linear step {unknown[0]!r:.80}")
        return [self.linear(self.loaded.linear_steps[name], words) for name in step_names]

    def run(self, activation: NDArray[np.int16]) -> Sequence[NDArray[np.float32]]:
        """The outputs of the whole network, float32 [B, *item shape]; see `DevicePort`."""
        walk = self._walk(self._check_activation(activation))
        while True:
            try:
                next(walk)
            except StopIteration as finished:
                outputs: list[NDArray[np.float32]] = finished.value
                return outputs

    def close(self) -> None:
        """Drops the plan and ends the threads of the mirror."""
        self._loaded = None
        self._dispatch.close()

    def linear(self, step: Linear, words: Words) -> NDArray[np.int32]:
        """The claim of one linear step, int32 [B, *output shape]: every claim is made here."""
        return self.engine.apply(self.loaded.maps[step.name], words)

    def _check_activation(self, activation: NDArray[np.int16]) -> NDArray[np.int16]:
        shape = self.loaded.plan.graph.input.output.shape
        if activation.dtype != np.int16 or activation.shape[1:] != shape:
            raise ApiMisuse(f"this plan takes int16 [B, {shape}], not {activation.dtype} {activation.shape}")
        return activation

    def _walk(self, activation: NDArray[np.int16]) -> Generator[Claim, None, list[NDArray[np.float32]]]:
        """Yields the claims; returns the outputs. Values are forgotten after their last reader."""
        loaded = self.loaded
        values: Values = {loaded.plan.graph.input.name: activation}
        for index, step in enumerate(loaded.plan.graph.steps):
            value = values[step.name] = self._value(step, values)
            if isinstance(step, Linear):
                yield Claim(step.name, value)
            for name in loaded.flow.forgotten_after(index):
                values.pop(name)
        return [values[output.source] for output in loaded.plan.graph.outputs]

    def _value(self, step: Step, values: Values) -> NDArray[Any]:
        sources = [values[name] for name in sources_of(step)]
        if isinstance(step, Linear):
            return self.linear(step, sources[0])
        if isinstance(step, Pointwise):
            return self._apply_pointwise(step, values)
        if isinstance(step, Pool):
            return pool(self._dispatch, step, sources[0])
        return apply_move(step, sources, self.loaded.plan.types)

    def _apply_pointwise(self, step: Pointwise, values: Values) -> NDArray[Any]:
        source = np.ascontiguousarray(values[step.source])
        batch = len(source)
        given = PassInput(
            source=source.reshape(batch, -1),
            mask_image=None,
            probes=(),
            program=self.loaded.programs[step.name],
            operands={name: values[name].reshape(batch, -1) for name in sources_of(step)[1:]},
            probe_images=(),
            mask=None,
        )
        result: NDArray[Any] = run_pass(self._dispatch, given).values.reshape(batch, *step.output.shape)
        return result
