"""A graph that cannot be run and proved is refused, and the message names the step, tensor or value at fault."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from slalom.errors import ModelError
from slalom.plan import Plan
from slalom.plan.steps import (
    Accumulator,
    Activation,
    Add,
    Affine,
    Apply,
    Concatenate,
    Convolution,
    Dense,
    Function,
    Graph,
    Layout,
    Linear,
    Output,
    Pad,
    Permute,
    Pointwise,
    Pool,
    Preprocessing,
    Real,
    Reduction,
    Reshape,
    Slice,
    Softmax,
    Step,
    Window,
)
from tests.graphs import every_step_graph

Tensors = dict[str, np.ndarray]
GRAPH, TENSORS = every_step_graph()
STEPS = {step.name: step for step in GRAPH.steps}
GATED = STEPS["gated"].output
assert isinstance(GATED, Activation)


def with_step(name: str, /, **changes: Any) -> Graph:
    """The graph with fields of one step replaced."""
    steps = tuple(dataclasses.replace(s, **changes) if s.name == name else s for s in GRAPH.steps)
    return dataclasses.replace(GRAPH, steps=steps)


def with_map(name: str, /, **changes: Any) -> Graph:
    """The graph with fields of a linear step's first map replaced."""
    step = STEPS[name]
    assert isinstance(step, Linear)
    return with_step(name, maps=(dataclasses.replace(step.maps[0], **changes), *step.maps[1:]))


def with_type(name: str, /, **changes: Any) -> Graph:
    """The graph with fields of one step's output replaced."""
    return with_step(name, output=dataclasses.replace(STEPS[name].output, **changes))


def with_input(**changes: Any) -> Graph:
    """The graph with fields of the input's type replaced."""
    output = dataclasses.replace(GRAPH.input.output, **changes)
    return dataclasses.replace(GRAPH, input=dataclasses.replace(GRAPH.input, output=output))


def plus(*steps: Step, at: int | None = None) -> Graph:
    """The graph with steps added, at the end or elsewhere."""
    place = len(GRAPH.steps) if at is None else at
    return dataclasses.replace(GRAPH, steps=(*GRAPH.steps[:place], *steps, *GRAPH.steps[place:]))


def with_tensor(name: str, change: Callable[[np.ndarray], Any]) -> tuple[Graph, Tensors]:
    """The graph with one tensor replaced."""
    return GRAPH, {**TENSORS, name: change(TENSORS[name].copy())}


def put(value: float) -> Callable[[np.ndarray], np.ndarray]:
    """Sets a tensor's last element."""

    def change(tensor: np.ndarray) -> np.ndarray:
        tensor.reshape(-1)[-1] = value
        return tensor

    return change


def refuse(given: Graph | tuple[Graph, Tensors], pattern: str) -> None:
    graph, tensors = given if isinstance(given, tuple) else (given, TENSORS)
    with pytest.raises(ModelError, match=pattern):
        Plan(graph, tensors)


def test_the_graph_of_these_tests_is_right() -> None:
    Plan(GRAPH, TENSORS)


FRAME = {
    "no steps": (dataclasses.replace(GRAPH, steps=()), "a plan has 1..20000 steps, this one 0"),
    "too many steps": (dataclasses.replace(GRAPH, steps=GRAPH.steps * 1000), "a plan has 1..20000 steps"),
    "no outputs": (dataclasses.replace(GRAPH, outputs=()), "at least one output"),
    "unknown output": (dataclasses.replace(GRAPH, outputs=(Output("x", Layout.PLAIN),)), "output 'x' is not"),
    "activation leaves": (dataclasses.replace(GRAPH, outputs=(Output("gate", Layout.PLAIN),)), "output 'gate' is not"),
    "accumulator leaves": (dataclasses.replace(GRAPH, outputs=(Output("stem", Layout.PLAIN),)), "output 'stem' is not"),
    "input leaves": (dataclasses.replace(GRAPH, outputs=(Output("image", Layout.PLAIN),)), "output 'image' is not"),
    "flat output as image": (
        dataclasses.replace(GRAPH, outputs=(*GRAPH.outputs, Output("log_probabilities", Layout.CHANNELS_FIRST))),
        "output 'log_probabilities': channels first needs",
    ),
    "flat input as image": (with_input(shape=(189,)), "input: channels first needs"),
    "unread step": (
        plus(Reshape("idle", "flat", dataclasses.replace(STEPS["flat"].output, shape=(5, 6)))),
        "step 'idle': nothing reads it",
    ),
    "unread claim": (
        dataclasses.replace(
            GRAPH, outputs=GRAPH.outputs[1:], steps=tuple(s for s in GRAPH.steps if s.name != "picture")
        ),
        "step 'paint': nothing reads it",
    ),
    "duplicate step": (plus(dataclasses.replace(STEPS["flat"], source="weights")), "step 'flat': the name is taken"),
    "input's name": (
        plus(Reshape("image", "flat", dataclasses.replace(STEPS["flat"].output, shape=(5, 6)))),
        "step 'image': the name is taken",
    ),
    "self reference": (with_step("tokens", source="tokens"), "step 'tokens': reads 'tokens', which comes later"),
    "cycle": (with_step("stem", source="gated"), "step 'stem': reads 'gated', which comes later"),
    "unknown source": (with_step("tokens", source="nowhere"), "step 'tokens': reads 'nowhere', which no step makes"),
    "operand later": (
        with_step("stem_out", operations=(STEPS["stem_out"].operations[0], Add("gated"))),  # type: ignore[union-attr]
        "step 'stem_out': reads 'gated', which comes later",
    ),
    "claim read twice": (
        plus(dataclasses.replace(STEPS["picture"], name="again")),  # type: ignore[arg-type]
        "step 'again': nothing reads it|step 'paint': 2 readers",
    ),
    "claim read by a pool": (
        with_step("maximum", source="stem"),
        "step 'maximum': reads 'stem', which is not an activation",
    ),
    "claim read by a softmax": (
        with_step("log_probabilities", source="classify"),
        "step 'log_probabilities': reads 'classify', which is not an activation",
    ),
    "claim as operand": (
        with_step("squeezed", operations=(STEPS["squeezed"].operations[0], Add("stem"))),  # type: ignore[union-attr]
        "step 'squeezed': reads 'stem', which is not an activation",
    ),
    "claim read by a linear step": (with_step("excite", source="mean"), "step 'excite': reads 'mean', which is not"),
    "float read again": (
        plus(Pointwise("more", "picture", STEPS["picture"].operations, Real((5, 5, 4)))),  # type: ignore[union-attr]
        "step 'more': a float output cannot be read again",
    ),
    "float from a reshape": (with_step("flat", output=Real((30,))), "only a pointwise step or a softmax"),
    "name with a space": (with_step("log_probabilities", name="a b"), "step name 'a b' is not letters"),
    "name beyond ASCII": (with_step("log_probabilities", name="é"), "step name 'é' is not letters"),
    "empty name": (with_step("log_probabilities", name=""), "step name '' is not letters"),
    "long name": (with_step("log_probabilities", name="x" * 201), "step name 'xxx"),
    "name with a line end": (with_step("log_probabilities", name="x\n"), "step name 'x"),
    "input name": (dataclasses.replace(GRAPH, input=dataclasses.replace(GRAPH.input, name="\0")), "input name"),
    "escape in the model's name": (dataclasses.replace(GRAPH, model="\x1b[2J"), "model or class name"),
    "long class name": (dataclasses.replace(GRAPH, classes=("x" * 1001,)), "model or class name 'xxx"),
    "class name of no character": (dataclasses.replace(GRAPH, classes=("\ud800",)), "model or class name"),
}


@pytest.mark.parametrize("case", FRAME)
def test_the_frame(case: str) -> None:
    refuse(*FRAME[case])


def test_a_claim_that_two_steps_read_is_refused() -> None:
    """Else it would be copied in twice, and what is checked need not be what is used."""
    again = dataclasses.replace(STEPS["picture"], name="again")  # type: ignore[arg-type]
    graph = dataclasses.replace(plus(again), outputs=(*GRAPH.outputs, Output("again", Layout.CHANNELS_FIRST)))
    refuse(graph, "step 'paint': 2 readers; a linear result has one")


def test_an_input_that_nothing_reads() -> None:
    step = Pool("p", "image", Reduction.SUM, (Window(0, 9),), (Window(0, 7),), Accumulator((1, 1, 3), 63 * 2047))
    real = Pointwise("r", "p", (Affine("stem_out.multiplier", "stem_out.bias"),), Real((1, 1, 3)))
    tensors = {name: np.ones(3, np.float32) for name in ("stem_out.multiplier", "stem_out.bias")}
    graph = dataclasses.replace(GRAPH, steps=(step, real), outputs=(Output("r", Layout.PLAIN),))
    Plan(graph, tensors)


@pytest.mark.parametrize("photo", [
    Preprocessing(0, 256, "bicubic", (1.0,), (1.0,)),
    Preprocessing(224, -1, "bicubic", (1.0,), (1.0,)),
    Preprocessing(224, 10**9, "bicubic", (1.0,), (1.0,)),
    Preprocessing(224, 256, "nearest", (1.0,), (1.0,)),
    Preprocessing(224, 256, "bilinear", (1.0,), (1.0, 2.0)),
    Preprocessing(224, 256, "bilinear", (1.0,), (0.0,)),
])  # fmt: skip
def test_preprocessing(photo: Preprocessing) -> None:
    refuse(dataclasses.replace(GRAPH, preprocessing=photo), "the preprocessing's")


WEIGHT, MULTIPLIER = "stem.weight", "stem_out.multiplier"
TENSOR_CASES: dict[str, tuple[Graph | tuple[Graph, Tensors], str]] = {
    "missing tensor": (
        (GRAPH, {k: v for k, v in TENSORS.items() if k != WEIGHT}),
        f"step 'stem': names tensor '{WEIGHT}', which the plan does not hold",
    ),
    "tensor of no step": ((GRAPH, {**TENSORS, "spare": np.ones(1, np.int8)}), "tensor 'spare' belongs to no step"),
    "name of a tensor": ((GRAPH, {**TENSORS, "a b": np.ones(1, np.int8)}), "tensor name 'a b'"),
    "name of the manifest's place": (
        (GRAPH, {**TENSORS, "__metadata__": np.ones(1, np.int8)}),
        "tensor '__metadata__': the name is taken",
    ),
    "-128": (with_tensor(WEIGHT, put(-128)), f"tensor '{WEIGHT}': a weight is -128"),
    "weight of 16 bits": (with_tensor(WEIGHT, lambda t: t.astype(np.int16)), f"'{WEIGHT}': type int16"),
    "weight of float": (with_tensor(WEIGHT, lambda t: t.astype(np.float32)), f"step 'stem': weight '{WEIGHT}' is not"),
    "weight of bool": (with_tensor(WEIGHT, lambda t: t > 0), f"'{WEIGHT}': type bool"),
    "float64": (with_tensor(MULTIPLIER, lambda t: t.astype(np.float64)), f"'{MULTIPLIER}': type float64"),
    "float16": (with_tensor(MULTIPLIER, lambda t: t.astype(np.float16)), f"'{MULTIPLIER}': type float16"),
    "big endian": (with_tensor(MULTIPLIER, lambda t: t.astype(">f4")), f"'{MULTIPLIER}': type >f4"),
    "NaN": (with_tensor(MULTIPLIER, put(math.nan)), f"tensor '{MULTIPLIER}': a number is not finite"),
    "infinity": (with_tensor(MULTIPLIER, put(math.inf)), f"tensor '{MULTIPLIER}': a number is not finite"),
    "multiplier of bytes": (
        with_tensor(MULTIPLIER, lambda t: t.astype(np.int8)),
        f"step 'stem_out': tensor '{MULTIPLIER}'",
    ),
    "multiplier that does not divide": (
        with_tensor(MULTIPLIER, lambda t: t[:3]),
        f"step 'stem_out': tensor '{MULTIPLIER}'",
    ),
    "multiplier of two axes": (with_tensor(MULTIPLIER, lambda t: t[None]), f"step 'stem_out': tensor '{MULTIPLIER}'"),
    "multiplier of none": (with_tensor(MULTIPLIER, lambda t: t[:0]), f"step 'stem_out': tensor '{MULTIPLIER}'"),
    "multiplier longer than bias": (
        with_tensor(MULTIPLIER, lambda t: t[:4]),
        "step 'stem_out': multiplier and bias differ",
    ),
    "numbers beyond float32": (with_tensor(MULTIPLIER, put(3e38)), "step 'stem_out': numbers may reach"),
    "weight with an empty axis": (with_tensor(WEIGHT, lambda t: t[:0]), "step 'stem': stem.weight: an axis is empty"),
    "weight of too few axes": (
        with_tensor(WEIGHT, lambda t: t[0]),
        "step 'stem': stem.weight: a convolution weight has 4",
    ),
    "weight of other channels": (
        with_tensor(WEIGHT, lambda t: t[:, :, :2]),
        "step 'stem': stem.weight: 3 input channels",
    ),
}


@pytest.mark.parametrize("case", TENSOR_CASES)
def test_tensors(case: str) -> None:
    refuse(*TENSOR_CASES[case])


STEM = STEPS["stem"].output
assert isinstance(STEM, Accumulator)
TYPES: dict[str, tuple[Graph, str]] = {
    "1 bit": (with_input(bits=1), "'image': 1 bits"),
    "16 bits": (with_type("gate", bits=16), "'gate': 16 bits"),
    "scale of 0": (with_input(scale=0.0), "'image': scale 0.0"),
    "negative scale": (with_type("gate", scale=-0.5), "'gate': scale -0.5"),
    "scale between float32s": (with_type("gate", scale=0.1), "'gate': scale 0.1"),
    "scale NaN": (with_type("gate", scale=math.nan), "'gate': scale nan"),
    "scale infinite": (with_type("gate", scale=math.inf), "'gate': scale inf"),
    "scale of 2^61": (with_type("gate", scale=2.0**61), "'gate': scale"),
    "scale of 2^-61": (with_type("gate", scale=2.0**-61), "'gate': scale"),
    "subnormal scale": (with_type("gate", scale=2.0**-140), "'gate': scale"),
    "empty axis": (with_type("gate", shape=(0, 1, 12)), "'gate': shape"),
    "negative axis": (with_type("gate", shape=(-1, -1, 12)), "'gate': shape"),
    "7 axes": (with_type("flat", shape=(30, 1, 1, 1, 1, 1, 1)), "'flat': shape"),
    "2^31 elements": (with_type("flat", shape=(2**31,)), "'flat': shape"),
    "product beyond 64 bits": (with_type("flat", shape=(2**40, 2**40)), "'flat': shape"),
    "bound beyond 32 bits": (with_type("stem", bound=2**31), "'stem': bound 2147483648 exceeds"),
    "negative bound": (with_type("stem", bound=-1), "'stem': bound -1"),
    "bound below the proof": (with_type("stem", bound=STEM.bound // 2), "step 'stem': bound .* is below the proved"),
    "range proof": (with_input(bits=15), "step 'stem': bound"),
    "shape of a claim": (with_type("stem", shape=(5, 7, 9)), r"step 'stem': output shape .* should be \(5, 7, 8\)"),
    "shape of a pointwise step": (with_type("gate", shape=(12,)), "step 'gate': output shape"),
    "shape of a softmax": (with_type("weights", shape=(30,)), "step 'weights': output shape"),
}


@pytest.mark.parametrize("case", TYPES)
def test_types(case: str) -> None:
    refuse(*TYPES[case])


def test_a_bound_is_the_proof_to_the_last_unit() -> None:
    """For one map the proof is exact: its own value passes, one less does not."""
    weight = TENSORS["project.weight"]
    proved = int(np.abs(weight.astype(np.int64)).sum((0, 1, 2)).max()) * GATED.limit
    Plan(with_type("project", bound=proved), TENSORS)
    refuse(with_type("project", bound=proved - 1), f"step 'project': bound {proved - 1} is below the proved {proved}")


def wide_dense(features: int, bits: int) -> tuple[Graph, Tensors]:
    """One dense step with every weight -127: sums reach features * 127 * limit."""
    proved = features * 127 * (2 ** (bits - 1) - 1)
    steps: tuple[Step, ...] = (
        Linear("fc", "x", (Dense("w"),), Accumulator((1,), min(proved, 2**31 - 1))),
        Pointwise("y", "fc", (Affine("m", "m"),), Real((1,))),
    )
    entry = dataclasses.replace(GRAPH.input, name="x", layout=Layout.PLAIN, output=Activation((features,), 1.0, bits))
    tensors = {"w": np.full((features, 1), -127, np.int8), "m": np.ones(1, np.float32)}
    return Graph("wide", entry, steps, (Output("y", Layout.PLAIN),)), tensors


def test_the_range_proof_ends_at_2_31() -> None:
    most = (2**31 - 1) // (127 * 16383)
    Plan(*wide_dense(most, 15))
    refuse(wide_dense(most + 1, 15), "step 'fc': range proof fails: sums may reach")


MAPS: dict[str, tuple[Graph, str]] = {
    "no maps": (with_step("excite", maps=()), "step 'excite': a linear step has at least one map"),
    "stride of 0": (with_map("stem", stride=(0, 1)), "step 'stem': stem.weight: stride, dilation and groups"),
    "negative stride": (with_map("stem", stride=(1, -1)), "step 'stem': stem.weight: stride, dilation and groups"),
    "dilation of 0": (with_map("stem", dilation=(1, 0)), "step 'stem': stem.weight: stride, dilation and groups"),
    "groups of 0": (with_map("stem", groups=0), "step 'stem': stem.weight: stride, dilation and groups"),
    "groups that do not divide": (with_map("stem", groups=2), "step 'stem': stem.weight: 3 input channels"),
    "negative padding": (with_map("stem", padding=(-1, 0, 0, 0)), "step 'stem': stem.weight: padding is never"),
    "kernel larger than the image": (with_map("stem", dilation=(9, 1)), "step 'stem': stem.weight: a 3x3 kernel"),
    "huge dilation": (with_map("stem", dilation=(2**53, 1)), "step 'stem': stem.weight: a 3x3 kernel"),
    "huge padding": (with_map("stem", padding=(2**40, 2**40, 0, 0), stride=(2**39, 1)), "step 'stem': a map goes over"),
    "padding that changes the shape": (with_map("stem", padding=(0, 0, 0, 0)), "step 'stem': output shape"),
    "dense on another length": (
        with_step("attend", source="padded"),
        "step 'attend': attend.weight: the last axis has 5",
    ),
    "dense weight in a convolution": (
        with_step("excite", maps=(Convolution("excite.weight", (1, 1), (0,) * 4, (1, 1), 1),)),  # type: ignore[arg-type]
        "step 'excite': excite.weight: a convolution weight has 4",
    ),
    "convolution weight in a dense map": (
        with_step("project", maps=(Dense("project.weight"),)),
        "step 'project': project.weight: a dense weight has 2",
    ),
    "convolution over a vector": (
        with_step("classify", maps=(Convolution("project.weight", (1, 1), (0, 0, 0, 0), (1, 1), 1),)),
        "step 'classify': project.weight: an image has 3 axes",
    ),
    "float tensor for a weight": (
        with_map("stem", weight=MULTIPLIER),
        f"step 'stem': weight '{MULTIPLIER}' is not int8",
    ),
    "chain that does not follow": (
        with_step("separable", maps=tuple(reversed(STEPS["separable"].maps))),  # type: ignore[union-attr]
        "step 'separable': dilated.weight|step 'separable': depthwise.weight",
    ),
}


@pytest.mark.parametrize("case", MAPS)
def test_maps(case: str) -> None:
    refuse(*MAPS[case])


AFFINE = Affine("gated.multiplier", "gated.bias")
GELU = Apply(Function.GELU)
POINTWISE: dict[str, tuple[Graph, str]] = {
    "no operations": (with_step("gated", operations=()), "step 'gated': the first operation must be affine"),
    "first not affine": (with_step("gated", operations=(GELU, AFFINE)), "step 'gated': the first operation must be"),
    "65 operations": (with_step("gated", operations=(AFFINE,) + (GELU,) * 64), "step 'gated': more than 64"),
    "slope above 1": (
        with_step("gated", operations=(AFFINE, Apply(Function.LEAKY_RELU, 1.5))),
        "step 'gated': a slope is 0..1",
    ),
    "negative slope": (
        with_step("gated", operations=(AFFINE, Apply(Function.LEAKY_RELU, -0.5))),
        "step 'gated': a slope is 0..1",
    ),
    "slope NaN": (
        with_step("gated", operations=(AFFINE, Apply(Function.LEAKY_RELU, math.nan))),
        "step 'gated': a slope is 0..1",
    ),
    "operand that does not divide": (
        with_step("gated", operations=(AFFINE, Add("stem_out"))),
        "step 'gated': operand 'stem_out' does not divide",
    ),
    "operand larger than the value": (
        with_step("squeezed", operations=(Affine("squeezed.multiplier", "squeezed.bias"), Add("functions"))),
        "step 'squeezed': operand 'functions' does not divide",
    ),
}


@pytest.mark.parametrize("case", POINTWISE)
def test_pointwise(case: str) -> None:
    refuse(*POINTWISE[case])


def test_numbers_that_outgrow_float32_step_by_step() -> None:
    tensors = {**TENSORS, "gated.multiplier": np.full_like(TENSORS["gated.multiplier"], 1e6)}
    refuse((with_step("gated", operations=(AFFINE,) * 5), tensors), "step 'gated': numbers may reach")


MAXIMUM = STEPS["maximum"]
assert isinstance(MAXIMUM, Pool)
POOLS: dict[str, tuple[Graph, str]] = {
    "window past the end": (
        with_step("maximum", rows=(*MAXIMUM.rows[:-1], Window(3, 6))),
        "step 'maximum': window 3:6:1 does not lie in 0..5",
    ),
    "negative start": (with_step("maximum", rows=(Window(-1, 2), *MAXIMUM.rows[1:])), "step 'maximum': window -1:2:1"),
    "empty window": (
        with_step("maximum", columns=(Window(2, 2), *MAXIMUM.columns[1:])),
        "step 'maximum': window 2:2:1",
    ),
    "step of 0": (
        with_step("maximum", columns=(Window(0, 2, 0), *MAXIMUM.columns[1:])),
        "step 'maximum': window 0:2:0",
    ),
    "negative step": (
        with_step("maximum", columns=(Window(0, 2, -1), *MAXIMUM.columns[1:])),
        "step 'maximum': window 0:2:-1",
    ),
    "no windows": (with_step("maximum", rows=()), "step 'maximum': output shape"),
    "one window less": (with_step("maximum", rows=MAXIMUM.rows[:-1]), "step 'maximum': output shape"),
    "too many windows": (with_step("maximum", rows=(Window(0, 1),) * 65_537), "step 'maximum': too many windows"),
    "maximum of another scale": (with_type("maximum", scale=1.0), "step 'maximum': a maximum keeps scale and bits"),
    "maximum of fewer bits": (with_type("maximum", bits=5), "step 'maximum': a maximum keeps scale and bits"),
    "maximum as sums": (
        with_step("maximum", output=Accumulator(MAXIMUM.output.shape, 2**30)),
        "step 'maximum': a maximum keeps scale and bits",
    ),
    "sum as activation": (with_step("maximum", reduction=Reduction.SUM), "step 'maximum': a sum gives an accumulator"),
    "sum beyond its bound": (with_type("mean", bound=18 * 2047 - 1), "step 'mean': sums may reach 36846"),
    "pool of a sequence": (with_step("maximum", source="image"), "step 'maximum'"),
    "pool of a vector": (
        plus(Pool("p", "flat", Reduction.MAXIMUM, (Window(0, 1),), (Window(0, 1),), GATED)),
        "step 'p': pooling needs an image",
    ),
}


@pytest.mark.parametrize("case", POOLS)
def test_pools(case: str) -> None:
    refuse(*POOLS[case])


def like(shape: tuple[int, ...]) -> Activation:
    """The type of the steps between `gated` and `tokens` under another shape."""
    return dataclasses.replace(GATED, shape=shape)


MOVES: dict[str, tuple[Graph, str]] = {
    "concatenate nothing": (with_step("joined", sources=()), "step 'joined': nothing to concatenate"),
    "concatenate on axis 3": (with_step("joined", axis=3), "step 'joined': axis 3 is out of range"),
    "concatenate on axis -1": (with_step("joined", axis=-1), "step 'joined': axis -1 is out of range"),
    "concatenate on another axis": (with_step("joined", axis=0), "step 'joined': sources differ in shape"),
    "concatenate other scales": (with_step("joined", sources=("gated", "gate")), "step 'joined': sources differ"),
    "concatenate other ranks": (
        plus(Concatenate("c", ("gated", "tokens"), 0, like((6, 3, 12)))),
        "step 'c': sources differ in rank",
    ),
    "concatenate too few": (
        with_step("joined", sources=("gated",)),
        "step 'joined': the joined axis has another length",
    ),
    "concatenate twice": (
        with_step("joined", sources=("gated", "gated", "projected")),
        "step 'joined': the joined axis has another length",
    ),
    "reshape to another count": (with_type("tokens", shape=(5, 24)), "step 'tokens': reshape changes the count"),
    "reshape to another scale": (with_type("tokens", scale=1.0), "step 'tokens': output should be"),
    "reshape to other bits": (with_type("tokens", bits=3), "step 'tokens': output should be"),
    "permute twice the same": (with_step("turned", axes=(0, 0, 1)), "step 'turned': axes .* are no permutation"),
    "permute two of three": (with_step("turned", axes=(0, 1)), "step 'turned': axes"),
    "permute negative": (with_step("turned", axes=(-1, 0, 1)), "step 'turned': axes"),
    "permute to another shape": (
        plus(Permute("p", "joined", (2, 0, 1), like((6, 3, 16)))),
        r"step 'p': output should be \(16, 6, 3\)",
    ),
    "slice of two axes": (
        with_step("cut", windows=(Window(0, 1), Window(0, 1))),
        "step 'cut': a slice names one window",
    ),
    "slice past the end": (
        with_step("cut", windows=(Window(1, 7, 2), Window(0, 3), Window(3, 16, 3))),
        "step 'cut': window 1:7:2 does not lie in 0..6",
    ),
    "slice to another shape": (
        with_step("cut", windows=(Window(1, 6, 3), Window(0, 3), Window(3, 16, 3))),
        r"step 'cut': output should be \(2, 3, 5\)",
    ),
    "pad negative": (with_step("padded", before=(-1, 0, 0)), "step 'padded': padding is one non-negative count"),
    "pad after negative": (with_step("padded", after=(0, 0, -1)), "step 'padded': padding is one non-negative count"),
    "pad two axes": (with_step("padded", before=(1, 0)), "step 'padded': padding is one non-negative count"),
    "pad to another shape": (with_step("padded", before=(2, 0, 0)), r"step 'padded': output should be \(6, 5, 5\)"),
    "pad hugely": (with_step("padded", before=(2**40, 0, 0)), "step 'padded': output should be"),
}


@pytest.mark.parametrize("case", MOVES)
def test_moves(case: str) -> None:
    refuse(*MOVES[case])


def scalar_graph(*steps: Step) -> Graph:
    """Steps over one number without an axis."""
    entry = dataclasses.replace(GRAPH.input, layout=Layout.PLAIN, output=Activation((), 1.0, 8))
    end = Pointwise("end", steps[-1].name if steps else "image", (Affine("m", "m"),), Real(()))
    return Graph("scalar", entry, (*steps, end), (Output("end", Layout.PLAIN),))


def test_a_value_without_axes() -> None:
    """Nothing but a refusal or a plan, for every step that could read it."""
    tensors = {"m": np.ones(1, np.float32)}
    one = Activation((), 1.0, 8)
    Plan(scalar_graph(), tensors)
    for step in (Permute("s", "image", (), one), Slice("s", "image", (), one), Pad("s", "image", (), (), one)):
        Plan(scalar_graph(step), tensors)
    refuse((scalar_graph(Softmax("s", "image", False, one)), tensors), "step 's': softmax needs an axis")
    pool = Pool("s", "image", Reduction.MAXIMUM, (), (), one)
    refuse((scalar_graph(pool), tensors), "step 's': pooling needs an image")
    refuse((scalar_graph(Concatenate("s", ("image",), 0, one)), tensors), "step 's': axis 0 is out of range")
    dense = Linear("s", "image", (Dense("w"),), Accumulator((), 0))
    refuse((scalar_graph(dense), {**tensors, "w": np.ones((1, 1), np.int8)}), "step 's': w: a dense map needs an axis")


def test_a_chain_may_not_pass_through_more_than_memory() -> None:
    """What lies between two maps is bounded as well, although the last output is small."""
    maps = (
        Convolution("stem.weight", (1, 1), (2**15, 2**15, 2**15, 2**15), (1, 1), 1),
        Convolution("pick", (2**20, 2**20), (0, 0, 0, 0), (1, 1), 1),
    )
    step = Linear("s", "image", maps, Accumulator((1, 1, 1), 2**31 - 1))
    end = Pointwise("end", "s", (Affine("m", "m"),), Real((1, 1, 1)))
    graph = dataclasses.replace(GRAPH, steps=(step, end), outputs=(Output("end", Layout.PLAIN),))
    tensors = {
        "stem.weight": TENSORS["stem.weight"],
        "pick": np.ones((1, 1, 8, 1), np.int8),
        "m": np.ones(1, np.float32),
    }
    refuse((graph, tensors), "step 's': a map goes over")
