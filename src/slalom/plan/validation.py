"""Everything a plan must satisfy before either side acts on it; each refusal is a ModelError that names the step.

The range proof is made again here, from the weights themselves: a plan is not believed because it was compiled.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

import numpy as np

from slalom.errors import ModelError
from slalom.plan.step_checks import check_step
from slalom.plan.steps import (
    ACCUMULATOR_LIMIT,
    MAXIMUM_BITS,
    MINIMUM_BITS,
    WEIGHT_LIMIT,
    Accumulator,
    Activation,
    Add,
    Affine,
    Concatenate,
    Graph,
    Layout,
    Linear,
    Multiply,
    Pointwise,
    Real,
    Shape,
    Softmax,
    Step,
    ValueType,
)

MAXIMUM_STEPS = 20_000
MAXIMUM_COUNT = 2**31 - 1
MAXIMUM_WORD_LENGTH = 1000
MAXIMUM_PHOTO_SIZE = 16_384

_NAME = re.compile(r"[A-Za-z0-9_.\-/:]{1,200}")
_SCALE_LIMITS = (2.0**-60, 2.0**60)


def infer_types(graph: Graph) -> Mapping[str, ValueType]:
    """The type of every value by name, as the graph declares it."""
    return {graph.input.name: graph.input.output, **{step.name: step.output for step in graph.steps}}


def sources_of(step: Step) -> tuple[str, ...]:
    """Every value a step reads, its main source first."""
    if isinstance(step, Concatenate):
        return step.sources
    if isinstance(step, Pointwise):
        return (step.source, *(item.operand for item in step.operations if isinstance(item, Add | Multiply)))
    return (step.source,)


def tensors_of(step: Step) -> tuple[str, ...]:
    """Every tensor a step names."""
    if isinstance(step, Linear):
        return tuple(item.weight for item in step.maps)
    if isinstance(step, Pointwise):
        pairs = [(item.multiplier, item.bias) for item in step.operations if isinstance(item, Affine)]
        return tuple(name for pair in pairs for name in pair)
    return ()


def check_tensors(tensors: Mapping[str, np.ndarray]) -> None:
    """Every tensor is int8 within -127..127 or finite float32, under a proper name."""
    for name, tensor in tensors.items():
        _check_name(name, "tensor")
        if name == "__metadata__":  # the file keeps the manifest there
            raise ModelError(f"tensor {name!r}: the name is taken")
        if tensor.dtype == np.int8:
            if tensor.size and int(tensor.min()) < -WEIGHT_LIMIT:
                raise ModelError(f"tensor {name!r}: a weight is -128; weights are -127..127")
        elif tensor.dtype != np.float32:
            raise ModelError(f"tensor {name!r}: type {tensor.dtype} is neither int8 nor float32")
        elif not bool(np.isfinite(tensor).all()):
            raise ModelError(f"tensor {name!r}: a number is not finite")


def check_graph(graph: Graph, tensors: Mapping[str, np.ndarray]) -> None:
    """Raises ModelError unless the graph and its tensors form a plan that can be run and proved."""
    check_tensors(tensors)
    _check_face(graph)
    types: dict[str, ValueType] = {graph.input.name: graph.input.output}
    read: set[str] = set()
    names = {graph.input.name, *(step.name for step in graph.steps)}
    for step in graph.steps:
        _check_place(step, types, names)
        read.update(sources_of(step))
        for name in tensors_of(step):
            if name not in tensors:
                raise ModelError(f"step {step.name!r}: names tensor {name!r:.80}, which the plan does not hold")
        check_type(step.name, step.output)
        check_step(step, types, tensors)
        types[step.name] = step.output
    _check_outputs(graph, types, read)
    _check_claims_read_once(graph)
    unused = set(tensors) - {name for step in graph.steps for name in tensors_of(step)}
    if unused:
        raise ModelError(f"tensor {min(unused)!r:.80} belongs to no step")


# ---------------------------------------------------------------- the frame


def _check_name(name: str, what: str) -> None:
    if not _NAME.fullmatch(name):
        raise ModelError(f"{what} name {name!r:.80} is not letters, digits and _ . - / : alone")


def _check_face(graph: Graph) -> None:
    _check_name(graph.input.name, "input")
    check_type(graph.input.name, graph.input.output)
    check_layout("input", graph.input.layout, graph.input.output.shape)
    _check_words(graph)
    if not 1 <= len(graph.steps) <= MAXIMUM_STEPS:
        raise ModelError(f"a plan has 1..{MAXIMUM_STEPS} steps, this one {len(graph.steps)}")
    if any(not isinstance(step, Pointwise) and not isinstance(step, Softmax) and isinstance(step.output, Real)
           for step in graph.steps):  # fmt: skip
        raise ModelError("only a pointwise step or a softmax gives float numbers")


def _check_words(graph: Graph) -> None:
    """What is shown to people is printable, and a photo's sizes are sizes."""
    for word in (graph.model, *graph.classes):
        if not word.isprintable() or len(word) > MAXIMUM_WORD_LENGTH:
            raise ModelError(f"model or class name {word!r:.80} is too long or not printable")
    photo = graph.preprocessing
    if photo is None:
        return
    right = 1 <= photo.crop_size <= MAXIMUM_PHOTO_SIZE and 1 <= photo.resize_size <= MAXIMUM_PHOTO_SIZE
    right = right and photo.interpolation in ("bicubic", "bilinear") and len(photo.mean) == len(photo.deviation)
    if not right or any(deviation <= 0 for deviation in photo.deviation):
        raise ModelError("the preprocessing's sizes, interpolation, mean or deviation are out of range")


def _check_place(step: Step, types: Mapping[str, ValueType], names: set[str]) -> None:
    _check_name(step.name, "step")
    if step.name in types:
        raise ModelError(f"step {step.name!r}: the name is taken")
    for source in sources_of(step):
        if source not in names:
            raise ModelError(f"step {step.name!r}: reads {source!r:.80}, which no step makes")
        if source not in types:
            raise ModelError(
                f"step {step.name!r}: reads {source!r}, which comes later: the graph is cyclic or unordered"
            )


def _check_outputs(graph: Graph, types: Mapping[str, ValueType], read: set[str]) -> None:
    if not graph.outputs:
        raise ModelError("a plan has at least one output")
    wanted = {output.source for output in graph.outputs}
    for output in graph.outputs:
        kind = types.get(output.source)
        if not isinstance(kind, Real):
            raise ModelError(f"output {output.source!r:.80} is not a step that gives float numbers")
        check_layout(f"output {output.source!r}", output.layout, kind.shape)
    idle = [step.name for step in graph.steps if step.name not in read | wanted]
    if idle:
        raise ModelError(f"step {idle[0]!r}: nothing reads it")
    if graph.input.name not in read:
        raise ModelError("no step reads the input")


def _check_claims_read_once(graph: Graph) -> None:
    """A claim is copied in, checked and used by one pass, so exactly one pointwise step reads it."""
    readers = [source for step in graph.steps for source in sources_of(step)]
    for step in graph.steps:
        if isinstance(step, Linear) and readers.count(step.name) != 1:
            raise ModelError(f"step {step.name!r}: {readers.count(step.name)} readers; a linear result has one")


def check_layout(what: str, layout: Layout, shape: Shape) -> None:
    if layout is Layout.CHANNELS_FIRST and len(shape) != 3:
        raise ModelError(f"{what}: channels first needs an item of three axes, not {shape}")


def check_type(name: str, kind: ValueType) -> None:
    if any(extent < 1 for extent in kind.shape) or len(kind.shape) > 6 or math.prod(kind.shape) > MAXIMUM_COUNT:
        raise ModelError(f"{name!r}: shape {kind.shape} is out of range")
    if isinstance(kind, Activation):
        if not MINIMUM_BITS <= kind.bits <= MAXIMUM_BITS:
            raise ModelError(f"{name!r}: {kind.bits} bits; activations have {MINIMUM_BITS}..{MAXIMUM_BITS}")
        if not _SCALE_LIMITS[0] <= kind.scale <= _SCALE_LIMITS[1] or float(np.float32(kind.scale)) != kind.scale:
            raise ModelError(f"{name!r}: scale {kind.scale!r} is not a positive float32 in range")
    elif isinstance(kind, Accumulator) and not 0 <= kind.bound <= ACCUMULATOR_LIMIT:
        raise ModelError(f"{name!r}: bound {kind.bound} exceeds 2^31 - 1")
