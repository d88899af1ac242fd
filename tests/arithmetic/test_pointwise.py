"""Programs against a scalar reading of plan.steps."""

from __future__ import annotations

import numpy as np
import pytest

from slalom.arithmetic import functions
from slalom.arithmetic.pointwise import Program, Requantisation, prepare_program, requantise, run_program
from slalom.errors import ModelError
from slalom.plan.steps import (
    Activation,
    Add,
    Affine,
    Apply,
    Function,
    Multiply,
    Operation,
    Pointwise,
    Real,
    ValueType,
)

SHAPE = (2, 3, 4)
TYPES: dict[str, ValueType] = {
    "whole": Activation(SHAPE, 0.03125, 12),
    "channels": Activation((1, 1, 4), 0.1, 8),
    "real": Real(SHAPE),
}
TENSORS = {
    "m": np.float32([1e-7, -3e-8, 2.5e-7, 1e-8]),
    "b": np.float32([0.5, -1.25, 0.0, 3.0]),
    "one": np.float32([0.7]),
    "half": np.float32([0.25] * 12),
}
OPERATIONS: tuple[Operation, ...] = (
    Affine("m", "b"),
    Add("whole"),
    Apply(Function.LEAKY_RELU, 0.1),
    Multiply("channels"),
    Affine("half", "half"),
    Affine("one", "one"),
)


def prepare(*operations: Operation, output: Activation | Real | None = None) -> Program:
    step = Pointwise("p", "source", operations, Activation(SHAPE, 0.0123, 12) if output is None else output)
    return prepare_program(step, TENSORS, TYPES)


def scalar_value(element: int, word: int, whole: int, channel: int) -> np.float32:
    f = np.float32
    v = f(word) * TENSORS["m"][element % 4] + TENSORS["b"][element % 4]
    v = v + f(whole) * f(0.03125)
    v = v if v > 0 else v * f(0.1)
    v = v * (f(channel) * f(0.1))
    v = v * f(0.25) + f(0.25)
    return v * f(0.7) + f(0.7)


@pytest.mark.parametrize("dtype", [np.int16, np.int32])
def test_a_program_is_its_scalar_reading(dtype: type) -> None:
    rng = np.random.default_rng(3)
    info = np.iinfo(dtype)
    source = rng.integers(info.min, info.max, (5, 24), dtype=dtype, endpoint=True)
    operands = {
        "whole": rng.integers(-2047, 2048, (5, 24), dtype=np.int16),
        "channels": rng.integers(-127, 128, (5, 4), dtype=np.int16),
    }
    expected = np.float32(
        [
            [
                scalar_value(e, int(source[b, e]), int(operands["whole"][b, e]), int(operands["channels"][b, e % 4]))
                for e in range(24)
            ]
            for b in range(5)
        ]
    )
    real = run_program(prepare(*OPERATIONS, output=Real(SHAPE)), source, operands)
    assert real.dtype == np.float32
    assert real.tobytes() == expected.tobytes()
    integers = run_program(prepare(*OPERATIONS), source, operands)
    inverse = np.float32(1) / np.float32(0.0123)
    assert integers.dtype == np.int16
    assert integers.tolist() == [[round(min(max(float(v * inverse), -2047), 2047)) for v in row] for row in expected]


def test_requantisation_rounds_half_to_even_and_clamps() -> None:
    halves = np.float32([-2.5, -1.5, -0.5, -0.0, 0.5, 1.5, 2.5, 126.5, 127.4, 127.5, 1e30, -1e30, np.nan])
    rounded = requantise(halves, Requantisation(np.float32(1), 127))
    assert rounded.tolist() == [-2, -2, 0, 0, 0, 2, 2, 126, 127, 127, 127, -127, 127]


def test_claims_are_rounded_to_float32_once() -> None:
    source = np.array([[2**31 - 1, 2**24 + 1, -(2**31)]], np.int32)
    one = {"one": np.float32([1.0]), "zero": np.float32([0.0])}
    program = prepare_program(Pointwise("p", "s", (Affine("one", "zero"),), Real((3,))), one, {})
    assert run_program(program, source, {}).tolist() == [[2.0**31, 2.0**24, -(2.0**31)]]


def test_functions_apply_by_name() -> None:
    source = np.arange(-12, 12, dtype=np.int16)[None]
    program = prepare(Affine("one", "one"), Apply(Function.GELU), output=Real(SHAPE))
    v = source.astype(np.float32) * np.float32(0.7) + np.float32(0.7)
    assert np.array_equal(run_program(program, source, {}), functions.gelu(v))


def test_refusals() -> None:
    tensors = {**TENSORS, "five": np.ones(5, np.float32), "nan": np.float32([np.nan]), "wide": np.ones(1, np.float64)}

    def refuse(match: str, *operations: Operation, output: Activation | None = None) -> None:
        step = Pointwise("p", "s", operations, output or Activation(SHAPE, 0.5, 8))
        with pytest.raises(ModelError, match=match):
            prepare_program(step, tensors, TYPES)

    refuse("begin with an affine")
    refuse("begin with an affine", Apply(Function.RELU))
    refuse("missing", Affine("absent", "b"))
    refuse("does not divide", Affine("five", "five"))
    refuse("finite float32", Affine("nan", "nan"))
    refuse("finite float32", Affine("wide", "wide"))
    refuse("differ in length", Affine("m", "one"))
    refuse("not an activation", Affine("m", "b"), Add("real"))
    refuse("not an activation", Affine("m", "b"), Multiply("absent"))
    refuse("positive normal", Affine("m", "b"), output=Activation(SHAPE, 0.0, 8))
    refuse("positive normal", Affine("m", "b"), output=Activation(SHAPE, 1e-40, 8))
