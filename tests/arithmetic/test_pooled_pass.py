"""A pass that pools as it goes: the bits of a pass and then a pool, whoever shares the rows, and no other windows."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import pytest

from slalom.arithmetic import fused
from slalom.arithmetic.dispatch import Isa, make_dispatch
from slalom.arithmetic.fused import PassInput, PassOutput, Pooling, pack_claims, run_pass
from slalom.arithmetic.pooling import pool
from slalom.errors import ApiMisuse
from slalom.plan.steps import Activation, Add, Affine, Apply, Function, Operation, Pool, Reduction, Window
from tests.arithmetic.test_fused import Case, draw, draw_words
from tests.isas import FUSED_ISAS

NATIVE = FUSED_ISAS[1:]
NUMPY = make_dispatch(Isa.NUMPY, 1)
PAIRS = tuple(Window(2 * k, 2 * k + 2, 1) for k in range(4))
UNEVEN = (Window(0, 1, 1), Window(1, 4, 1), Window(4, 8, 1))
OVERLAPPING = (Window(0, 3, 1), Window(1, 4, 2), Window(2, 5, 1))
RELU: tuple[Operation, ...] = (Affine("m", "b"), Apply(Function.RELU))
RESIDUAL: tuple[Operation, ...] = (Affine("m", "b"), Add("a"), Apply(Function.RELU))


@dataclass(frozen=True)
class Form:
    """What varies: the image (8 rows high), its windows, and what the pass reads."""

    batch: int = 5
    width: int = 6
    channels: int = 32
    rows: tuple[Window, ...] = PAIRS
    columns: tuple[Window, ...] = OVERLAPPING
    operations: tuple[Operation, ...] = RELU
    source: str = "masked"
    probes: int = 1

    def draw(self) -> PassInput:
        shape = (8, self.width, self.channels)
        case = Case(self.batch, math.prod(shape), self.operations, self.channels, probes=self.probes, images=0)
        given = replace(draw(case), pooling=Pooling(make_pool(shape, self.rows, self.columns), shape))
        rng = np.random.default_rng(self.width)
        if self.source == "masked":
            return replace(given, mask_image=draw_words(rng, given.source.shape))
        if self.source == "packed":
            return replace(given, source=pack_claims(given.source))
        if self.source == "activation":
            return replace(given, source=given.source.astype(np.int16))
        return given


@pytest.fixture(autouse=True, params=["as it goes", "afterwards"])
def when(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Small passes pool afterwards; here they do both."""
    if request.param == "as it goes":
        monkeypatch.setattr(fused, "_POOLED_ELEMENTS", 0)


def make_pool(shape: tuple[int, int, int], rows: tuple[Window, ...], columns: tuple[Window, ...]) -> Pool:
    output = Activation((len(rows), len(columns), shape[2]), 0.0071, 12)
    return Pool("pool", "p", Reduction.MAXIMUM, rows, columns, output)


def assert_pooled(got: PassOutput, given: PassInput) -> None:
    """`got` against a pass that keeps everything, and a pool of what it kept."""
    assert given.pooling is not None
    whole = run_pass(NUMPY, replace(given, pooling=None))
    images = whole.values.reshape(len(whole.values), *given.pooling.shape)
    maxima = pool(NUMPY, given.pooling.step, images).reshape(len(images), -1)
    assert (got.values.dtype, got.values.tobytes()) == (np.dtype(np.int16), maxima.tobytes())
    assert np.array_equal(got.source_dots, whole.source_dots)
    assert got.output_dots.shape == (len(images), 0)
    assert got.blinded is None


@pytest.mark.parametrize("isa", [Isa.NUMPY, *NATIVE])
@pytest.mark.parametrize("source", ["masked", "plain", "packed", "activation"])
@pytest.mark.parametrize("operations", [RELU, RESIDUAL, RELU[:1]])
def test_every_source_and_program(isa: Isa, source: str, operations: tuple[Operation, ...]) -> None:
    given = Form(source=source, operations=operations).draw()
    assert_pooled(run_pass(make_dispatch(isa, 1), given), given)


@pytest.mark.parametrize("isa", NATIVE)
@pytest.mark.parametrize("rows", [PAIRS, UNEVEN, (Window(0, 8, 1),)])
@pytest.mark.parametrize("channels", [1, 3, 16, 130])
@pytest.mark.parametrize("batch", [1, 3, 4, 9])
def test_every_shape(isa: Isa, rows: tuple[Window, ...], channels: int, batch: int) -> None:
    given = Form(batch=batch, channels=channels, rows=rows, probes=2).draw()
    assert_pooled(run_pass(make_dispatch(isa, 1), given), given)


@pytest.mark.parametrize("isa", NATIVE)
@pytest.mark.parametrize("threads", [2, 3, 7])
def test_every_number_of_threads(isa: Isa, threads: int) -> None:
    dispatch = make_dispatch(isa, threads)
    for rows in (PAIRS, UNEVEN):
        given = Form(batch=6, rows=rows, channels=64).draw()
        out = np.empty((6, len(rows) * 3 * 64), np.int16)
        got = run_pass(dispatch, given, values_out=out)
        assert got.values is out
        assert_pooled(got, given)
    dispatch.close()


def test_scratch_that_lay_about_changes_nothing() -> None:
    given = Form().draw()

    def dirty(shape: tuple[int, ...], dtype: object) -> np.ndarray:
        return np.full(shape, 32767, np.int16)

    for isa in NATIVE:
        assert_pooled(run_pass(make_dispatch(isa, 1), given, scratch=dirty), given)


@pytest.mark.parametrize(
    "rows",
    [
        (Window(0, 2, 1), Window(1, 8, 1)),  # a row twice: it would be dotted twice
        (Window(0, 2, 1), Window(3, 8, 1)),  # a row never
        (Window(0, 7, 1),),
        (Window(1, 8, 1),),
        (Window(0, 8, 2),),
        (Window(4, 8, 1), Window(0, 4, 1)),
    ],
)
@pytest.mark.parametrize("isa", [Isa.NUMPY, *NATIVE])
def test_windows_that_do_not_follow_are_refused(isa: Isa, rows: tuple[Window, ...]) -> None:
    given = Form(rows=rows).draw()
    with pytest.raises(ApiMisuse, match="one after another"):
        run_pass(make_dispatch(isa, 1), given)


def test_what_cannot_be_pooled_is_refused() -> None:
    given = Form().draw()
    shape = given.source.shape
    image = given.probes[0]
    pooling = given.pooling
    assert pooling is not None
    summed = Pooling(replace(pooling.step, reduction=Reduction.SUM), pooling.shape)
    for wrong in (
        replace(given, mask=draw_words(np.random.default_rng(0), shape)),
        replace(given, probe_images=(image,)),
        replace(given, kept=False),
        replace(given, pooling=summed),
        replace(given, pooling=Pooling(pooling.step, (8, 6, 31))),
        replace(given, program=None, source=given.source.astype(np.int16), mask_image=None),
    ):
        with pytest.raises(ApiMisuse):
            run_pass(NUMPY, wrong)
