"""A plan resident on an accelerator: weights packed there, and every step as kernels over tensors that stay there.

Enters and leaves: tensors on that device. Which stream runs, and what crosses to the host, is not its business.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from slalom.arithmetic.digits import MAXIMUM_DIGITS, digits_needed
from slalom.arithmetic.pointwise import prepare_program, prepare_requantisation
from slalom.device.kernels.convolution import PackedWeights, convolve, pack_weights
from slalom.device.kernels.depthwise import convolve_depthwise
from slalom.device.kernels.packing import PACKED_LIMIT
from slalom.device.kernels.pointwise import DeviceProgram, load_program, run_program
from slalom.device.kernels.pooling import PreparedPool, pool, prepare_pool
from slalom.device.kernels.softmax import softmax
from slalom.errors import ApiMisuse
from slalom.plan import Plan
from slalom.plan.flow import trace_flow
from slalom.plan.shapes import Geometry, chain_geometries, weight_bound
from slalom.plan.steps import (
    Activation,
    Concatenate,
    Linear,
    LinearMap,
    Pad,
    Permute,
    Pointwise,
    Pool,
    Reshape,
    Shape,
    Slice,
    Softmax,
    Step,
)
from slalom.plan.validation import sources_of

Values = dict[str, Tensor]


@dataclass(frozen=True, eq=False)
class ResidentMap:
    """One map with its weights on the device, and the digits that its input needs where the words are in range."""

    geometry: Geometry
    weights: PackedWeights | Tensor  # a Tensor, int8 [taps, outputs], where every group has one input channel
    digits: int

    def apply(self, words: Tensor, digits: int) -> Tensor:
        """The map of int16 or int32 words [B, ...], int32 [B, *output image]."""
        image = words.view(-1, *self.geometry.input_image)
        out = torch.empty((len(image), *self.geometry.output_image), dtype=torch.int32, device=words.device)
        if isinstance(self.weights, Tensor):
            convolve_depthwise(image, self.weights, out, self.geometry)
        else:
            convolve(image, self.weights, out, digits)
        return out


@dataclass(frozen=True, eq=False)
class ResidentStep:
    """A linear step: its maps, the shapes at its ends, and whether its claims fit 3 bytes where the input is plain."""

    maps: tuple[ResidentMap, ...]
    input_shape: Shape
    output_shape: Shape
    packs: bool


def make_resident(
    maps: tuple[LinearMap, ...], weights: Mapping[str, NDArray[np.int8]], source: Activation, device: torch.device
) -> tuple[ResidentMap, ...]:
    """The maps of a chain over items of `source`, on the device."""
    geometries = chain_geometries(maps, weights, source.shape)
    resident: list[ResidentMap] = []
    limit = source.limit
    for position, (linear_map, geometry) in enumerate(zip(maps, geometries, strict=True)):
        resident.append(place_map(geometry, weights[linear_map.weight], _digits(limit), device))
        # |x| <= limit for the chain's input -> |value after this map| <= weight_bound * limit
        limit = weight_bound(maps[: position + 1], weights) * source.limit
    return tuple(resident)


def place_map(geometry: Geometry, weight: NDArray[np.int8], digits: int, device: torch.device) -> ResidentMap:
    """One map on the device, its weights packed there."""
    kernel = torch.from_numpy(np.array(weight)).to(device)
    single = geometry.groups > 1 and geometry.group_inputs == 1
    return ResidentMap(geometry, kernel.view(geometry.taps, -1) if single else pack_weights(geometry, kernel), digits)


def _digits(limit: int) -> int:
    needed = digits_needed(-limit, limit)
    return needed if needed <= 2 else MAXIMUM_DIGITS  # the kernels take 1, 2 or 4


class ResidentPlan:
    """The steps of a plan as kernels on `device`: exact, equal to `arithmetic` bit for bit."""

    def __init__(self, plan: Plan, device: torch.device) -> None:
        self.plan = plan
        self.device = device
        self.flow = trace_flow(plan.graph)
        self.linear_steps: dict[str, ResidentStep] = {}
        self._programs: dict[str, DeviceProgram] = {}
        self._pools: dict[str, PreparedPool] = {}
        for step in plan.graph.steps:
            if isinstance(step, Linear):
                self.linear_steps[step.name] = self._load_linear(step)
            elif isinstance(step, Pointwise):
                self._programs[step.name] = load_program(prepare_program(step, plan.tensors, plan.types), device)
            elif isinstance(step, Pool):
                self._pools[step.name] = prepare_pool(step, device)

    def linear(self, name: str, words: Tensor, wide: bool = False) -> Tensor:
        """The claim of a linear step, int32 [B, *output shape], C-contiguous.

        words: int32 [B, *input shape], any; or int16 within the source activation's limit, unless `wide`.
        """
        step = self.linear_steps[name]
        every = wide or words.dtype == torch.int32
        value = words.contiguous()
        for resident in step.maps:
            value = resident.apply(value, MAXIMUM_DIGITS if every else resident.digits)
        return value.view(len(words), *step.output_shape)

    def walk(self, activation: Tensor, values: Values, wide: bool = False) -> Iterator[tuple[str, Tensor]]:
        """Runs every step from the input activation, int16 [B, *input shape], yielding each claim as it is launched.

        `values` holds what later steps still read, and at the end the outputs by name.
        """
        graph = self.plan.graph
        values[graph.input.name] = activation
        for index, step in enumerate(graph.steps):
            first = isinstance(step, Linear) and step.source == graph.input.name
            values[step.name] = self.value(step, values, wide and first)
            if isinstance(step, Linear):
                yield step.name, values[step.name]
            for name in self.flow.forgotten_after(index):
                values.pop(name)

    def outputs(self, activation: Tensor, wide: bool = False) -> Iterator[tuple[Tensor, ...]]:
        """The whole network at once: all its outputs, float32 [B, *item shape], in the plan's order."""
        values: Values = {}
        for _ in self.walk(activation, values, wide):
            pass
        yield tuple(values[output.source] for output in self.plan.graph.outputs)

    def value(self, step: Step, values: Mapping[str, Tensor], wide: bool = False) -> Tensor:
        """One step's value, [B, *output shape], from the values that it reads."""
        sources = [values[name] for name in sources_of(step)]
        if isinstance(step, Linear):
            return self.linear(step.name, sources[0], wide)
        if isinstance(step, Pointwise):
            return self._pointwise(step, values)
        if isinstance(step, Pool):
            return pool(self._pools[step.name], sources[0])
        if isinstance(step, Softmax):
            return self._softmax(step, sources[0])
        return _move(step, sources).contiguous()

    def _load_linear(self, step: Linear) -> ResidentStep:
        source = self.plan.types[step.source]
        if not isinstance(source, Activation):
            raise ApiMisuse(f"linear step {step.name!r} does not read an activation")
        maps = make_resident(step.maps, self.plan.tensors, source, self.device)
        # |y| <= bound < 2^23 by the plan's range proof
        return ResidentStep(maps, source.shape, step.output.shape, step.output.bound < PACKED_LIMIT)

    def _pointwise(self, step: Pointwise, values: Mapping[str, Tensor]) -> Tensor:
        source = values[step.source]
        batch = len(source)
        operands = {name: values[name].view(batch, -1) for name in sources_of(step)[1:]}
        result = run_program(self._programs[step.name], source.view(batch, -1), operands)
        return result.view(batch, *step.output.shape)

    def _softmax(self, step: Softmax, source: Tensor) -> Tensor:
        kind = self.plan.types[step.source]
        if not isinstance(kind, Activation):
            raise ApiMisuse(f"step {step.name!r}: a softmax reads an activation")
        output = prepare_requantisation(step.output) if isinstance(step.output, Activation) else None
        return softmax(source, kind.scale, step.logarithm, output)


def _move(step: Step, sources: list[Tensor]) -> Tensor:
    """The moves by torch, which only copies integers here."""
    first = sources[0]
    if isinstance(step, Concatenate):
        return torch.cat(sources, dim=step.axis + 1)
    if isinstance(step, Reshape):
        return first.reshape(len(first), *step.output.shape)
    if isinstance(step, Permute):
        return first.permute(0, *(axis + 1 for axis in step.axes))
    if isinstance(step, Slice):
        windows = (slice(window.start, window.stop, window.step) for window in step.windows)
        return first[(slice(None), *windows)]
    if isinstance(step, Pad):
        ends = zip(reversed(step.before), reversed(step.after), strict=True)
        return torch.nn.functional.pad(first, [count for pair in ends for count in pair])
    raise ApiMisuse(f"step {step.name!r} is a {type(step).__name__.lower()}, not a move")
