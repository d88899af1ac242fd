"""The epilogue kernels equal the trusted arithmetic bit for bit: programs, functions, softmax, pooling."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from slalom.arithmetic import functions as exact
from slalom.arithmetic.dispatch import Isa, make_dispatch
from slalom.arithmetic.moves import apply_move
from slalom.arithmetic.pointwise import (
    PreparedAdd,
    PreparedAffine,
    PreparedApply,
    PreparedMultiply,
    PreparedOperation,
    Program,
    Requantisation,
)
from slalom.arithmetic.pointwise import run_program as run_exact
from slalom.arithmetic.pooling import pool as pool_exact
from slalom.plan.steps import Accumulator, Activation, Function, Pool, Real, Reduction, Softmax, Window
from tests.accelerator import CUDA, DEVICE, pytestmark  # noqa: F401
from tests.arithmetic.geometries import draw_words
from tests.graph_builder import windows

from slalom.device.kernels.pointwise import load_program, run_program  # isort: skip
from slalom.device.kernels.pooling import pool, prepare_pool  # isort: skip
from slalom.device.kernels.softmax import softmax  # isort: skip

COUNT = 2**22 if CUDA else 2**13
REQUANTISATIONS = (None, Requantisation(np.float32(1) / np.float32(0.0123), 16383), Requantisation(np.float32(77), 1))


def affine(rng: np.random.Generator, length: int, size: float = 1.0) -> PreparedAffine:
    multiplier = (rng.standard_normal(length) * size * 1e-3).astype(np.float32)
    bias = rng.standard_normal(length).astype(np.float32)
    return PreparedAffine(multiplier, bias, multiplier, bias)


def constant(multiplier: float, bias: float) -> PreparedAffine:
    rows = np.array([multiplier], np.float32), np.array([bias], np.float32)
    return PreparedAffine(*rows, *rows)


def check(program: Program, source: np.ndarray, operands: dict[str, np.ndarray]) -> None:
    placed = {name: torch.from_numpy(operand).to(DEVICE) for name, operand in operands.items()}
    given = torch.from_numpy(source).to(DEVICE)
    result = run_program(load_program(program, DEVICE), given, placed).cpu().numpy()
    with np.errstate(all="ignore"):
        expected = run_exact(program, source, operands)
    assert result.dtype == expected.dtype and result.shape == expected.shape
    kind = np.int32 if result.dtype == np.float32 else np.int16
    np.testing.assert_array_equal(result.view(kind), expected.view(kind))


@pytest.mark.parametrize("output", REQUANTISATIONS)
@pytest.mark.parametrize("function", list(Function))
def test_every_function(function: Function, output: Requantisation | None) -> None:
    rng = np.random.default_rng(31)
    operations = (constant(2.0**-18, -0.001), PreparedApply(function, np.float32(0.137)))
    source = rng.integers(-(2**23), 2**23, (2, COUNT)).astype(np.int32)  # about -32..32
    source[:, ::2] >>= 4
    check(Program(operations, output), source, {})


@pytest.mark.parametrize("function", list(Function))
def test_functions_at_their_edges(function: Function) -> None:
    points = [0, 1e-45, 1e-38, 1e-20, 0.625, 1, 3, 6, 11, 12.75, 40, 87, 88, 104, 1e4, 1e30, 3e38]
    values = np.array(points, np.float32)
    values = np.concatenate([np.nextafter(values, np.float32(0)), values, np.nextafter(values, np.float32(3.4e38))])
    values = np.concatenate([values, -values])
    rows = (np.zeros_like(values), values)
    program = Program((PreparedAffine(*rows, *rows), PreparedApply(function, np.float32(0.3))), None)
    source = np.arange(values.size, dtype=np.int32)[None]
    if function in (Function.HARD_SWISH, Function.SILU, Function.GELU, Function.GELU_TANH):
        assert np.isfinite(exact.apply(function, values)).all()
    check(program, source, {})


def test_nothing_is_contracted_or_flushed() -> None:
    """v * m + b where one rounding and two differ, and where the product is subnormal."""
    rng = np.random.default_rng(32)
    source = rng.integers(-(2**31), 2**31, (1, COUNT)).astype(np.int32)
    multiplier = rng.uniform(1, 2, COUNT).astype(np.float32)
    # a bias that nearly cancels the product leaves its rounding error alone
    bias = -(source[0].astype(np.float32) * multiplier)
    fused = (source[0].astype(np.float32).astype(np.float64) * multiplier + bias).astype(np.float32)
    assert np.count_nonzero(fused) > COUNT // 2  # so a contraction would show
    check(Program((PreparedAffine(multiplier, bias, multiplier, bias),), None), source, {})
    tiny = (rng.uniform(1, 2, COUNT) * 1e-41).astype(np.float32)
    zero = np.zeros(COUNT, np.float32)
    program = Program((PreparedAffine(tiny, zero, tiny, zero), PreparedAffine(tiny + 1, tiny, tiny, tiny)), None)
    check(program, source >> 24, {})


@pytest.mark.parametrize("output", REQUANTISATIONS)
@pytest.mark.parametrize("dtype", [np.int16, np.int32])
@pytest.mark.parametrize(("count", "length", "size"), [(105, 7, 15), (1, 1, 1), (2064, 16, 2064), (1029, 1, 3)])
def test_programs_with_operands(count: int, length: int, size: int, dtype, output: Requantisation | None) -> None:
    rng = np.random.default_rng(33)
    operations: tuple[PreparedOperation, ...] = (
        affine(rng, length),
        PreparedAdd("a", np.float32(0.017)),
        PreparedApply(Function.RELU, np.float32(0)),
        PreparedMultiply("b", np.float32(0.3)),
        affine(rng, count),
    )
    operands = {"a": draw_words(rng, (3, size), np.int16), "b": draw_words(rng, (3, count), np.int16)}
    source = draw_words(rng, (3, count), dtype)
    check(Program(operations, output), source, operands)
    check(Program(operations * 4, output), source, operands)  # more than one kernel


@pytest.mark.parametrize("length", [1, 2, 3, 7, 10, 64, 65, 1000])
@pytest.mark.parametrize("logarithm", [False, True])
@pytest.mark.parametrize("output", [Real((1,)), Activation((1,), 2.0**-10, 12)])
def test_softmax(length: int, logarithm: bool, output: Activation | Real) -> None:
    source = np.random.default_rng(34).integers(-2047, 2048, (2, 3, length)).astype(np.int16)
    source[0, 0, :] = source[0, 0, 0]
    source[1, 2] = 0
    kind = Activation((3, length), float(np.float32(0.037)), 12)
    step = Softmax("softmax", "x", logarithm, output)
    requantised = Requantisation(np.float32(2.0**10), 2047) if isinstance(output, Activation) else None
    result = softmax(torch.from_numpy(source).to(DEVICE), kind.scale, logarithm, requantised).cpu().numpy()
    expected = apply_move(step, [source], {"x": kind})
    assert result.dtype == expected.dtype
    assert result.tobytes() == np.ascontiguousarray(expected).tobytes()


@pytest.mark.parametrize("reduction", list(Reduction))
@pytest.mark.parametrize(
    ("rows", "columns"),
    [
        (windows(9, 3, 2, 1), windows(7, 3, 2, 1)),
        ((Window(0, 9),), (Window(0, 7),)),
        ((Window(0, 9, 4), Window(8, 9)), (Window(2, 3), Window(0, 7, 2), Window(6, 7))),
    ],
)
def test_pooling(rows, columns, reduction: Reduction) -> None:
    x = draw_words(np.random.default_rng(35), (3, 9, 7, 5), np.int16)
    output = Accumulator((1,), 1) if reduction is Reduction.SUM else Activation((1,), 1.0, 15)
    step = Pool("pool", "x", reduction, rows, columns, output)
    result = pool(prepare_pool(step, DEVICE), torch.from_numpy(x).to(DEVICE)).cpu().numpy()
    expected = pool_exact(make_dispatch(Isa.NUMPY, threads=1), step, x)
    assert result.dtype == expected.dtype
    np.testing.assert_array_equal(result, expected)
