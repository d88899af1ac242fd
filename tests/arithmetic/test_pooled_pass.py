"""A pass that pools as it goes: the bits of a pass and then a pool, whoever shares the rows, and no other windows."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import pytest

from slalom.arithmetic import fused
from slalom.arithmetic.dispatch import Isa, make_dispatch
from slalom.arithmetic.field import P
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
TRIPLE_PAIRS = PAIRS[:3]
AFFINE = Affine("m", "b")
RELU: tuple[Operation, ...] = (AFFINE, Apply(Function.RELU))
RELU6: tuple[Operation, ...] = (AFFINE, Apply(Function.RELU6))
RESIDUAL: tuple[Operation, ...] = (AFFINE, Add("a"), Apply(Function.RELU))


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
    period: int | None = None

    def draw(self) -> PassInput:
        shape = (8, self.width, self.channels)
        period = self.period or self.channels
        case = Case(self.batch, math.prod(shape), self.operations, period, probes=self.probes, images=0)
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
@pytest.mark.parametrize("source", ["masked", "plain", "packed"])
@pytest.mark.parametrize(
    "operations", [RELU, RELU[:1], (AFFINE, Apply(Function.RELU6))], ids=["relu", "affine", "relu6"]
)
@pytest.mark.parametrize("channels", [16, 48, 256, 272, 512])
def test_windows_of_two_by_two(isa: Isa, source: str, operations: tuple[Operation, ...], channels: int) -> None:
    """Which AVX-512 pools in registers, tile by tile: of several columns, of one, of a part of the channels."""
    for batch, width in ((1, 6), (8, 10), (9, 2)):
        columns = tuple(Window(2 * k, 2 * k + 2, 1) for k in range(width // 2))
        form = Form(batch, width, channels, columns=columns, operations=operations, source=source)
        given = form.draw()
        assert_pooled(run_pass(make_dispatch(isa, 1), given), given)


@pytest.mark.parametrize("isa", NATIVE)
@pytest.mark.parametrize(("width", "channels"), [(8200, 272), (1200, 4112)])
def test_wide_rows_do_not_overflow_the_sums_of_a_band(isa: Isa, width: int, channels: int) -> None:
    """Many small tiles, each of which adds the largest claims times the largest probe."""
    count, claim = 2 * width * channels, -(2**31) + 1
    columns = tuple(Window(2 * k, 2 * k + 2) for k in range(width // 2))
    form = Form(1, 6, channels, source="plain", operations=RELU[:1]).draw()
    given = replace(
        form,
        source=np.full((1, count), claim, np.int32),
        probes=(np.full(count, P - 1, np.uint64),),
        pooling=Pooling(make_pool((2, width, channels), columns[:1], columns), (2, width, channels)),
    )
    assert run_pass(make_dispatch(isa, 1), given).source_dots.tolist() == [[claim * (P - 1) * count % P]]


@pytest.mark.parametrize("isa", NATIVE)
@pytest.mark.parametrize("width", [7, 8])
def test_columns_that_no_window_reads_are_dotted(isa: Isa, width: int) -> None:
    given = Form(width=width, columns=TRIPLE_PAIRS).draw()
    assert_pooled(run_pass(make_dispatch(isa, 1), given), given)


@pytest.mark.parametrize("isa", NATIVE)
@pytest.mark.parametrize("period", [1, 16, 96, 192, 8 * 6 * 32])
def test_the_affine_may_differ_between_pixels(isa: Isa, period: int) -> None:
    given = Form(columns=TRIPLE_PAIRS, period=period).draw()
    assert_pooled(run_pass(make_dispatch(isa, 1), given), given)


@pytest.mark.parametrize("isa", FUSED_ISAS)
def test_a_claim_that_is_not_the_largest_of_its_window_is_checked_too(isa: Isa) -> None:
    """A device that lies only where the maximum hides it."""
    given = Form(batch=2, columns=TRIPLE_PAIRS, source="plain").draw()
    given = replace(given, probes=tuple(np.maximum(probe, 1).astype(np.uint64) for probe in given.probes))
    honest = run_pass(make_dispatch(isa, 1), given)
    hidden = 0
    for place in range(0, given.source.shape[1], 7):
        claims = given.source.copy()
        claims[1, place] = -(2**31) if claims[1, place] != -(2**31) else -(2**31) + 1
        cheated = run_pass(make_dispatch(isa, 1), replace(given, source=claims))
        hidden += np.array_equal(cheated.values, honest.values)
        assert (cheated.source_dots[1] != honest.source_dots[1]).all()
        assert (cheated.source_dots[0] == honest.source_dots[0]).all()
    assert hidden > 0


@pytest.mark.parametrize("isa", NATIVE)
@pytest.mark.parametrize("threads", [2, 3, 7])
def test_every_number_of_threads(isa: Isa, threads: int) -> None:
    dispatch = make_dispatch(isa, threads)
    for rows, columns in ((PAIRS, OVERLAPPING), (PAIRS, TRIPLE_PAIRS), (UNEVEN, TRIPLE_PAIRS)):
        given = Form(batch=19, rows=rows, columns=columns, channels=64).draw()
        out = np.empty((19, len(rows) * 3 * 64), np.int16)
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
