"""The frequent form of a pass, which AVX-512 runs in one loop: the same bits for every shape it can take."""

from __future__ import annotations

import numpy as np
import pytest

from slalom.arithmetic import fused
from slalom.arithmetic.dispatch import Isa, make_dispatch
from slalom.arithmetic.fused import run_pass
from slalom.plan.steps import Affine, Apply, Function, Operation
from tests.arithmetic.test_fused import Case, assert_same, draw
from tests.isas import FUSED_ISAS

NATIVE = FUSED_ISAS[1:]
NUMPY = make_dispatch(Isa.NUMPY, 1)
AFFINE = Affine("m", "b")
PROGRAMS: list[tuple[Operation, ...]] = [
    (AFFINE,),
    (AFFINE, Apply(Function.RELU)),
    (AFFINE, Apply(Function.RELU6)),
]


@pytest.mark.parametrize("isa", NATIVE)
@pytest.mark.parametrize("operations", PROGRAMS, ids=["affine", "relu", "relu6"])
@pytest.mark.parametrize("count", [16, 48, 1008, 1024, 1200, 4080, 5136])
@pytest.mark.parametrize("images", [0, 1])
@pytest.mark.parametrize("masked", [False, True])
def test_the_frequent_form(isa: Isa, operations: tuple[Operation, ...], count: int, images: int, masked: bool) -> None:
    for period in (1, 3 if count % 3 == 0 else 2, count):
        case = Case(count=count, period=period, operations=operations, images=images, masked=masked)
        given = draw(case)
        assert_same(run_pass(make_dispatch(isa, 1), given), run_pass(NUMPY, given))


@pytest.mark.parametrize("isa", NATIVE)
@pytest.mark.parametrize("images", [0, 1])
@pytest.mark.parametrize("part", ["mask", "mask_image"])
def test_one_mask_of_the_two(isa: Isa, images: int, part: str) -> None:
    given = draw(Case(count=2064, period=24, operations=PROGRAMS[1], images=images, masked=True))
    given = fused.PassInput(**{**vars(given), part: None})
    assert_same(run_pass(make_dispatch(isa, 1), given), run_pass(NUMPY, given))


@pytest.mark.parametrize("isa", NATIVE)
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("skip", [0, 1, 16, 32])
def test_results_written_past_the_caches(isa: Isa, masked: bool, skip: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fused, "_STREAM_ELEMENTS", 1)
    monkeypatch.setattr(fused, "_STREAM_VALUES", 1)
    given = draw(Case(count=3072, period=48, operations=PROGRAMS[1], masked=masked))
    size = given.source.size
    values = np.zeros(size + 64, np.int16)[skip : skip + size].reshape(given.source.shape)
    blinded = np.zeros(size + 64, np.int32)[skip : skip + size].reshape(given.source.shape) if masked else None
    got = run_pass(make_dispatch(isa, 1), given, values_out=values, blinded_out=blinded)
    assert_same(got, run_pass(NUMPY, given))
