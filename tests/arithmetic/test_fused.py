"""The fused pass: every instruction set gives the bits of the NumPy reference, and its dots are the integers'."""

from __future__ import annotations

import ctypes
import platform
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

from slalom.arithmetic import fused
from slalom.arithmetic.dispatch import Isa, make_dispatch
from slalom.arithmetic.field import P
from slalom.arithmetic.fused import PassInput, PassOutput, run_pass
from slalom.arithmetic.pointwise import Program, prepare_program
from slalom.errors import ApiMisuse
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
from tests.isas import FUSED_ISAS

NATIVE = FUSED_ISAS[1:]
ROUND_UP = 0x800  # FE_UPWARD of fenv.h on x86-64
NUMPY = make_dispatch(Isa.NUMPY, 1)
COUNTS = (1, 15, 16, 17, 31, 33, 127, 1009, 1023, 1024, 1025, 2053)


@dataclass(frozen=True)
class Case:
    """What varies between passes; everything else is drawn at random with extremes mixed in."""

    batch: int = 3
    count: int = 1025
    operations: tuple[Operation, ...] = (Affine("m", "b"), Apply(Function.RELU))
    period: int = 1
    operand_count: int = 1
    probes: int = 1
    images: int = 1
    masked: bool = False
    real: bool = False
    bits: int = 12


def draw_words(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    words = rng.integers(-(2**31), 2**31, shape, dtype=np.int32)
    edges = np.array([-(2**31), -(2**31) + 1, -1, 0, 1, 2**31 - 1], np.int32)
    return np.where(rng.random(shape) < 0.3, rng.choice(edges, shape), words).astype(np.int32)


def draw_elements(rng: np.random.Generator, count: int, columns: int) -> tuple[np.ndarray, ...]:
    edges = np.array([0, 1, 2**26 - 1, 2**26, P - 1, P - 1], np.uint64)
    drawn = [rng.integers(0, P, count, dtype=np.uint64) for _ in range(columns)]
    return tuple(np.where(rng.random(count) < 0.3, rng.choice(edges, count), row) for row in drawn)


def prepare(case: Case, rng: np.random.Generator) -> Program:
    tensors = {
        "m": (rng.normal(0, 1, case.period) * 2.0 ** rng.integers(-34, -24, case.period)).astype(np.float32),
        "b": rng.normal(0, 2, case.period).astype(np.float32),
        "n": rng.normal(0, 1, case.period).astype(np.float32),
    }
    types: dict[str, ValueType] = {
        "a": Activation((case.count,), 0.015625, 12),
        "c": Activation((case.operand_count,), 0.0123, 8),
    }
    output = Real((case.count,)) if case.real else Activation((case.count,), 0.0071, case.bits)
    return prepare_program(Pointwise("p", "s", case.operations, output), tensors, types)


def draw(case: Case) -> PassInput:
    rng = np.random.default_rng(case.count * 1000 + case.batch)
    shape = (case.batch, case.count)
    return PassInput(
        source=draw_words(rng, shape),
        mask_image=draw_words(rng, shape) if case.masked else None,
        probes=draw_elements(rng, case.count, case.probes),
        program=prepare(case, rng),
        operands={
            "a": rng.integers(-2047, 2048, shape, dtype=np.int16),
            "c": rng.integers(-127, 128, (case.batch, case.operand_count), dtype=np.int16),
        },
        probe_images=draw_elements(rng, case.count, case.images),
        mask=draw_words(rng, shape) if case.masked else None,
    )


def assert_same(got: PassOutput, expected: PassOutput) -> None:
    for name in ("values", "source_dots", "output_dots", "blinded"):
        a, b = getattr(got, name), getattr(expected, name)
        assert (a is None) == (b is None), name
        if a is not None:
            assert (a.dtype, a.shape) == (b.dtype, b.shape), name
            assert a.tobytes() == b.tobytes(), name


def check(isa: Isa, case: Case) -> None:
    given = draw(case)
    assert_same(run_pass(make_dispatch(isa, 1), given), run_pass(NUMPY, given))


@pytest.mark.parametrize("isa", NATIVE)
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("count", COUNTS)
def test_every_count(isa: Isa, masked: bool, count: int) -> None:
    for period in (1, count):
        check(isa, Case(count=count, period=period, masked=masked, probes=2, images=1))


@pytest.mark.parametrize("isa", NATIVE)
@pytest.mark.parametrize("period", [1, 2, 3, 5, 16, 24, 900, 1200, 1800, 3600])
def test_every_period_of_the_affine(isa: Isa, period: int) -> None:
    for second in ((), (Apply(Function.RELU6),), (Apply(Function.TANH), Affine("n", "b"))):
        check(isa, Case(count=3600, period=period, operations=(Affine("m", "b"), *second)))


@pytest.mark.parametrize("isa", NATIVE)
@pytest.mark.parametrize("function", Function)
def test_every_function(isa: Isa, function: Function) -> None:
    operations = (Affine("m", "b"), Apply(function, 0.1 if function is Function.LEAKY_RELU else 0.0))
    for count in (1, 37, 2500):
        check(isa, Case(count=count, operations=operations))
        check(isa, Case(count=count, operations=operations, real=True, images=0))


@pytest.mark.parametrize("isa", NATIVE)
@pytest.mark.parametrize("function", Function)
def test_functions_of_a_wide_sweep(isa: Isa, function: Function) -> None:
    rows = np.concatenate([np.linspace(-120, 120, 40_000), np.geomspace(1e-30, 1e30, 10_000), [0.0, 6.0, -3.0]])
    values = np.concatenate([rows, -rows]).astype(np.float32)
    # The sweep enters as a bias: claim * 0 + bias.
    tensors = {"zero": np.zeros(values.size, np.float32), "sweep": values}
    step = Pointwise("p", "s", (Affine("zero", "sweep"), Apply(function, 0.25)), Real((values.size,)))
    given = PassInput(np.ones((1, values.size), np.int32), None, (), prepare_program(step, tensors, {}), {}, (), None)
    assert_same(run_pass(make_dispatch(isa, 1), given), run_pass(NUMPY, given))


@pytest.mark.parametrize("isa", NATIVE)
@pytest.mark.parametrize("operand_count", [1, 2, 3, 7, 48, 336, 1008, 2016, 4032])
def test_operands_repeat(isa: Isa, operand_count: int) -> None:
    operations = (Affine("m", "b"), Add("a"), Apply(Function.SILU), Multiply("c"), Add("c"), Apply(Function.RELU))
    case = Case(count=4032, operand_count=operand_count, period=operand_count, operations=operations, masked=True)
    check(isa, case)
    check(isa, replace(case, real=True, images=0, masked=False))


@pytest.mark.parametrize("isa", NATIVE)
@pytest.mark.parametrize("probes", range(4))
@pytest.mark.parametrize("images", range(5))
def test_every_number_of_probes(isa: Isa, probes: int, images: int) -> None:
    check(isa, Case(count=1300, probes=probes, images=images))


@pytest.mark.parametrize("isa", NATIVE)
@pytest.mark.parametrize("bits", [2, 8, 15])
def test_every_width(isa: Isa, bits: int) -> None:
    check(isa, Case(count=500, bits=bits))


@pytest.mark.parametrize("isa", NATIVE)
@pytest.mark.parametrize("skip", [0, 1, 7, 16])
def test_streamed_outputs(isa: Isa, skip: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fused, "_STREAM_ELEMENTS", 1)
    for count in (1, 15, 33, 1025, 2053):
        given = draw(Case(count=count, masked=True))
        blinded = np.zeros(3 * count + skip, np.int32)[skip:].reshape(3, count)
        assert_same(run_pass(make_dispatch(isa, 1), given, blinded_out=blinded), run_pass(NUMPY, given))


@pytest.mark.parametrize("isa", NATIVE)
@pytest.mark.parametrize("threads", [1, 2, 3, 5])
def test_threads_share_the_elements(isa: Isa, threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fused, "_RANGE_ELEMENTS", 1)
    dispatch = make_dispatch(isa, threads)
    for case in (Case(count=5 * 1024 + 7, period=3, masked=True, probes=2), Case(batch=1, count=700)):
        given = draw(case)
        assert_same(run_pass(dispatch, given), run_pass(NUMPY, given))
    dispatch.close()


@pytest.mark.parametrize("isa", FUSED_ISAS)
@pytest.mark.parametrize("count", [1, 17, 3001])
def test_dots_are_the_integers(isa: Isa, count: int) -> None:
    given = draw(Case(count=count, probes=2, images=3, masked=True))
    result = run_pass(make_dispatch(isa, 1), given)
    for item in range(3):
        unblinded = [
            (int(claim) - int(mask) + 2**31) % 2**32 - 2**31
            for claim, mask in zip(given.source[item], given.mask_image[item], strict=True)  # type: ignore[arg-type, index]
        ]
        for column, probe in enumerate(given.probes):
            exact = sum(y * int(s) for y, s in zip(unblinded, probe, strict=True)) % P
            assert int(result.source_dots[item, column]) == exact
        for column, image in enumerate(given.probe_images):
            exact = sum(int(q) * int(t) for q, t in zip(result.values[item], image, strict=True)) % P
            assert int(result.output_dots[item, column]) == exact


@pytest.mark.parametrize("isa", NATIVE)
@pytest.mark.parametrize("claim", [-(2**31), 2**31 - 1])
def test_the_largest_sums_do_not_overflow(isa: Isa, claim: int) -> None:
    given = draw(Case(batch=1, count=5000, probes=3, images=3, bits=15))
    limit = (np.full(5000, P - 1, np.uint64),) * 3
    given = replace(given, source=np.full((1, 5000), claim, np.int32), probes=limit, probe_images=limit)
    result = run_pass(make_dispatch(isa, 1), given)
    assert result.source_dots.tolist() == [[claim * (P - 1) * 5000 % P] * 3]
    assert result.output_dots.tolist() == [[int(result.values.sum(dtype=np.int64)) * (P - 1) % P] * 3]
    extreme = replace(given, source=np.full((1, 5000), -(2**15) if claim < 0 else 2**15 - 1, np.int16), program=None)
    assert_same(run_pass(make_dispatch(isa, 1), extreme), run_pass(NUMPY, extreme))


@pytest.mark.parametrize("isa", FUSED_ISAS)
@pytest.mark.parametrize("place", [0, 15, 1023, 1024, 2052])
def test_one_flipped_element_changes_the_dot(isa: Isa, place: int) -> None:
    given = draw(Case(count=2053, probes=2))
    given = replace(given, probes=tuple(np.maximum(probe, 1).astype(np.uint64) for probe in given.probes))
    honest = run_pass(make_dispatch(isa, 1), given)
    for bit in (0, 15, 31):
        claims = given.source.copy()
        claims.view(np.uint32)[1, place] ^= np.uint32(1 << bit)
        cheated = run_pass(make_dispatch(isa, 1), replace(given, source=claims))
        assert (cheated.source_dots[1] != honest.source_dots[1]).all()
        assert (cheated.source_dots[[0, 2]] == honest.source_dots[[0, 2]]).all()


@pytest.mark.parametrize("isa", FUSED_ISAS)
def test_an_activation_passes_unchanged(isa: Isa) -> None:
    given = draw(Case(count=1500, probes=2, images=2, masked=True))
    source = np.random.default_rng(9).integers(-(2**15), 2**15, (3, 1500), dtype=np.int16)
    given = replace(given, source=source, mask_image=None, program=None)
    result = run_pass(make_dispatch(isa, 1), given)
    assert_same(result, run_pass(NUMPY, given))
    assert np.array_equal(result.values, source)
    assert given.mask is not None
    assert np.array_equal(result.blinded, (source.astype(np.int64) + given.mask).astype(np.int32))
    out = np.zeros_like(source)
    assert run_pass(make_dispatch(isa, 1), given, values_out=out).values is out
    assert np.array_equal(out, source)


@pytest.mark.parametrize("isa", FUSED_ISAS)
def test_an_int16_source_may_have_a_program(isa: Isa) -> None:
    given = draw(Case(count=1500))
    source = np.random.default_rng(9).integers(-(2**15), 2**15, (3, 1500), dtype=np.int16)
    given = replace(given, source=source)
    assert_same(run_pass(make_dispatch(isa, 1), given), run_pass(NUMPY, given))


@pytest.mark.parametrize("isa", FUSED_ISAS)
def test_outputs_go_where_they_are_told(isa: Isa) -> None:
    given = draw(Case(count=1100, masked=True))
    values, blinded = np.zeros((3, 1100), np.int16), np.zeros((3, 1100), np.int32)
    result = run_pass(make_dispatch(isa, 1), given, values_out=values, blinded_out=blinded)
    assert result.values is values
    assert result.blinded is blinded
    assert_same(result, run_pass(NUMPY, given))
    real = draw(Case(count=1100, real=True, images=0))
    numbers = np.zeros((3, 1100), np.float32)
    assert run_pass(make_dispatch(isa, 1), real, values_out=numbers).values is numbers
    assert numbers.tobytes() == run_pass(NUMPY, real).values.tobytes()


@pytest.mark.parametrize("isa", FUSED_ISAS)
def test_arrays_are_not_changed_and_may_be_read_only(isa: Isa) -> None:
    given = draw(Case(count=1100, masked=True))
    arrays = (given.source, given.mask_image, given.mask, *given.probes, *given.probe_images)
    before = [array.tobytes() for array in arrays if array is not None]
    for array in arrays:
        if array is not None:
            array.setflags(write=False)
    run_pass(make_dispatch(isa, 1), given)
    assert before == [array.tobytes() for array in arrays if array is not None]


def test_refusals() -> None:
    given = draw(Case(count=64, operations=(Affine("m", "b"), Add("c")), masked=True))
    assert given.mask_image is not None
    real = draw(Case(count=64, real=True, images=0)).program

    def refuse(match: str, changed: dict[str, Any], **outputs: Any) -> None:
        for isa in FUSED_ISAS:
            with pytest.raises(ApiMisuse, match=match):
                run_pass(make_dispatch(isa, 1), replace(given, **changed), **outputs)

    refuse("int16 or int32", {"source": given.source.astype(np.int64)})
    refuse("contiguous and not empty", {"source": given.source[:, ::2]})
    refuse("claims need a program", {"program": None})
    refuse("only claims", {"source": given.source.astype(np.int16)})
    refuse("mask image must be", {"mask_image": given.mask_image[:, :63]})
    refuse("mask must be", {"mask": given.mask_image.astype(np.int64)})
    refuse("probe must be", {"probes": (np.zeros(63, np.uint64),)})
    refuse("probe must be", {"probe_images": (np.zeros(64, np.int64),)})
    refuse("more than 64", {"probes": given.probes * 65})
    refuse("operand c", {"operands": {}})
    refuse("operand c", {"operands": {"c": np.zeros((2, 1), np.int16)}})
    refuse("does not divide", {"operands": {"c": np.zeros((3, 7), np.int16)}})
    refuse("neither dotted nor masked", {"program": real})
    refuse("values_out must be", {}, values_out=np.zeros((3, 64), np.int32))
    refuse("blinded_out must be", {}, blinded_out=np.zeros((3, 63), np.int32))
    refuse("needs a mask", {"mask": None}, blinded_out=np.zeros((3, 64), np.int32))


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the number of the rounding mode is x86-64's")
@pytest.mark.parametrize("isa", NATIVE)
@pytest.mark.parametrize("real", [False, True])
def test_the_rounding_mode_of_the_calling_thread_changes_nothing(isa: Isa, real: bool) -> None:
    """Some library in the process may have left the processor in another mode; the thread gets its mode back."""
    given = draw(Case(real=real, images=0 if real else 1, operations=(Affine("m", "b"), Affine("n", "b"))))
    expected, dispatch, libm = run_pass(NUMPY, given), make_dispatch(isa, 1), ctypes.CDLL(None)
    assert libm.fesetround(ROUND_UP) == 0
    try:
        got = run_pass(dispatch, given)
        after = libm.fegetround()
    finally:
        libm.fesetround(0)
    assert_same(got, expected)
    assert after == ROUND_UP
