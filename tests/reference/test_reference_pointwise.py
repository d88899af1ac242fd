"""The epilogue's roundings, limits and addressing, on numbers small enough to be followed by hand."""

from __future__ import annotations

import numpy as np

from reference.pointwise import apply_pointwise, quantise, repeated
from slalom.plan.steps import Activation, Add, Affine, Multiply, Operation, Pointwise, Real


def run(operations: tuple[Operation, ...], source: list[int], scale: float = 1.0, bits: int = 15) -> list[int]:
    tensors = {"m": np.float32([2, 3]), "b": np.float32([0.5, -1]), "one": np.float32([1]), "zero": np.float32([0])}
    values = {"x": np.array([source]), "a": np.array([[10, 20]], np.int16)}
    step = Pointwise("v", "x", operations, Activation((len(source),), scale, bits))
    result: list[int] = apply_pointwise(step, tensors, values, {"a": 0.5})[0].tolist()
    return result


def test_affine_repeats_along_the_item() -> None:
    assert run((Affine("m", "b"),), [1, 1, 2, 2], scale=0.5) == [5, 4, 9, 10]


def test_operands_repeat_and_are_scaled() -> None:
    assert run((Affine("one", "zero"), Add("a")), [1, 2, 3, 4]) == [6, 12, 8, 14]
    assert run((Affine("one", "zero"), Multiply("a")), [1, 2, 3, 4]) == [5, 20, 15, 40]


def test_operands_belong_to_their_item() -> None:
    step = Pointwise("v", "x", (Affine("one", "zero"), Add("a")), Real((2,)))
    tensors = {"one": np.float32([1]), "zero": np.float32([0])}
    values = {"x": np.zeros((3, 2), np.int32), "a": np.array([[1], [2], [3]], np.int16)}
    assert apply_pointwise(step, tensors, values, {"a": 1.0}).tolist() == [[1, 1], [2, 2], [3, 3]]


def test_rounds_half_to_even_and_clamps() -> None:
    v = np.float32([0.5, 1.5, 2.5, -0.5, -1.5, 6.4, 6.6, 7.5, 1e30, -1e30])
    assert quantise(v, Activation((10,), 1.0, 4)).tolist() == [0, 2, 2, 0, -2, 6, 7, 7, 7, -7]


def test_requantises_with_the_rounded_reciprocal() -> None:
    scale = float(np.float32(0.1))
    v = np.float32([12345.0]) * np.float32(0.1)
    inverse = np.float32(1) / np.float32(scale)
    assert quantise(v, Activation((1,), scale, 15))[0] == np.rint(v[0] * inverse)


def test_affine_rounds_twice() -> None:
    x = 2**12 + 1  # x * x = 2**24 + 2**13 + 1 needs 25 bits: the product is rounded before the sum
    tensors = {"m": np.float32([x]), "b": np.float32([-(2**24 + 2**13)])}
    step = Pointwise("v", "x", (Affine("m", "b"),), Real((1,)))
    assert apply_pointwise(step, tensors, {"x": np.array([[x]])}, {})[0, 0] == 0  # fused, it would be 1


def test_accumulators_become_the_nearest_float() -> None:
    step = Pointwise("v", "x", (Affine("one", "zero"),), Real((3,)))
    tensors = {"one": np.float32([1]), "zero": np.float32([0])}
    x = np.array([[2**24 + 1, 2**24 + 3, -(2**31) + 1]])
    assert apply_pointwise(step, tensors, {"x": x}, {})[0].tolist() == [2**24, 2**24 + 4, -(2**31)]


def test_repeated_is_modulo_the_flat_index() -> None:
    v = np.zeros((1, 2, 3, 2), np.float32)
    assert repeated(np.float32([1, 2, 3]), v)[0].ravel().tolist() == [1, 2, 3, 1, 2, 3, 1, 2, 3, 1, 2, 3]
