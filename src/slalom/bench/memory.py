"""How much memory a process or a plan takes."""

from __future__ import annotations

import math
import resource
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from slalom.arithmetic.pointwise import PreparedAffine
from slalom.link.layout import make_layout
from slalom.plan import Plan
from slalom.plan.flow import trace_flow
from slalom.plan.steps import Accumulator, Linear, Real
from slalom.trusted.model import make_model
from slalom.trusted.policy import Check, Policy, Protection

_ELEMENT_SIZE = 8  # a field element


@dataclass(frozen=True)
class TrustedMemory:
    """What the trusted side holds, in bytes: `steady` by kind between requests, `in_flight` more for each image in
    flight, `peak` at set-up: steady and the weights; what a probe image takes for a moment is not counted (0013)."""

    steady: Mapping[str, int]
    in_flight: int
    peak: int

    @property
    def steady_total(self) -> int:
        """All that is held between requests."""
        return sum(self.steady.values())


def resident_bytes() -> tuple[int, int]:
    """Resident memory of this process now, and the most it has been, in bytes (Linux)."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    resident = pages * resource.getpagesize()
    # the kernel notes the most only now and then, so it may lag behind
    return resident, max(resident, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)


@dataclass(frozen=True)
class LinkMemory:
    """What both sides map, in bytes, for so many images in a micro-batch and micro-batches in flight: where the worker
    is on a CPU, with a slot for every claim, and behind a GPU, with a ring for the claims that come in pieces."""

    images: int
    micro_batches: int
    cpu: int
    cuda: int


def link_memory(plan: Plan, images: int, micro_batches: int) -> LinkMemory:
    """The memory of a link, from the plan alone."""
    layout = make_layout(plan)
    gpus = (False, True)
    sizes = (layout.geometry(images, micro_batches, streams=streams, words=streams).size for streams in gpus)
    return LinkMemory(images, micro_batches, *sizes)


def trusted_memory(plan: Plan, policy: Policy) -> TrustedMemory:
    """Predicts the trusted side's memory from the plan alone; `eval` shows what was counted beside it.

    Weights are counted as the plan holds them, once for each use; the panels that the kernels read pad small layers.
    """
    steady = {"parameters": _parameter_bytes(plan)}
    if policy.protection.checked and policy.check is Check.PREPROCESSED:
        steady["probes"], steady["probe_images"] = _probe_bytes(plan, policy.rounds)
    weights = sum(tensor.nbytes for tensor in plan.tensors.values() if tensor.dtype.itemsize == 1)
    fresh_probes = policy.protection.checked and policy.check is not Check.PREPROCESSED
    inside = policy.protection.masked or policy.protection is Protection.ENCLAVE
    if copies := fresh_probes + inside:
        steady["weights"] = copies * weights
    total = sum(steady.values())
    return TrustedMemory(steady, _in_flight_bytes(plan), total if copies else total + weights)


def _parameter_bytes(plan: Plan) -> int:
    """Of the epilogues as prepared, where an affine operation is held once more in double width."""
    affine = [
        operation
        for program in make_model(plan).programs.values()
        for operation in program.operations
        if isinstance(operation, PreparedAffine)
    ]
    return sum(
        parameter.nbytes
        for item in affine
        for parameter in (item.multiplier, item.bias, item.wide_multiplier, item.wide_bias)
    )


def _probe_bytes(plan: Plan, rounds: int) -> tuple[int, int]:
    linear = [step for step in plan.graph.steps if isinstance(step, Linear)]
    probes = sum(math.prod(step.output.shape) for step in linear)
    images = sum(math.prod(plan.types[step.source].shape) for step in linear)
    return probes * rounds * _ELEMENT_SIZE, images * rounds * _ELEMENT_SIZE


def _in_flight_bytes(plan: Plan) -> int:
    """The most that values alive at once take for one image: int16 activations, int32 claims and sums."""
    flow = trace_flow(plan.graph)
    size = {}
    for name, kind in plan.types.items():
        wide = isinstance(kind, Accumulator | Real)
        size[name] = math.prod(kind.shape) * (4 if wide else 2)
    alive = {plan.graph.input.name}
    peak = 0
    for index, step in enumerate(plan.graph.steps):
        alive.add(step.name)
        peak = max(peak, sum(size[name] for name in alive))
        alive -= set(flow.forgotten_after(index))
    return peak
