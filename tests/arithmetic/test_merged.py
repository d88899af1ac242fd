"""The frequent form of a pass, which AVX-512 runs in one loop: the same bits for every shape it can take."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from slalom.arithmetic import fused
from slalom.arithmetic.dispatch import Isa, make_dispatch
from slalom.arithmetic.field import P
from slalom.arithmetic.fused import pack_claims, run_pass
from slalom.arithmetic.pointwise import Requantisation, prepare_program
from slalom.plan.steps import Activation, Add, Affine, Apply, Function, Operation, Pointwise
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
@pytest.mark.parametrize("operations", PROGRAMS, ids=["affine", "relu", "relu6"])
@pytest.mark.parametrize("count", [31, 32, 48, 544, 1040, 1056, 2080])
@pytest.mark.parametrize("images", [0, 1])
@pytest.mark.parametrize("source", ["masked", "plain", "packed"])
def test_items_that_share_what_is_made_of_the_probes(
    isa: Isa, operations: tuple[Operation, ...], count: int, images: int, source: str
) -> None:
    """From four items on; 64 of them at a time."""
    for batch in (4, 67):
        given = draw(Case(batch, count, operations, images=images, masked=source == "masked", bits=15))
        if source == "packed":
            given = replace(given, source=pack_claims(given.source))
        assert_same(run_pass(make_dispatch(isa, 1), given), run_pass(NUMPY, given))


@pytest.mark.parametrize("isa", NATIVE)
@pytest.mark.parametrize("end", [(), (Apply(Function.RELU),), (Apply(Function.RELU6),)], ids=["sum", "relu", "relu6"])
@pytest.mark.parametrize("operand", ["a", "c"])
@pytest.mark.parametrize("images", [0, 1])
@pytest.mark.parametrize("source", ["masked", "plain", "packed"])
def test_an_operand_that_is_added(isa: Isa, end: tuple[Operation, ...], operand: str, images: int, source: str) -> None:
    """An activation of the same shape in the merged loops; one that repeats, stage by stage."""
    for batch, count in ((1, 48), (3, 1040), (4, 2080), (65, 1056)):
        case = Case(batch, count, (AFFINE, Add(operand), *end), 16, 8, images=images, masked=source == "masked")
        given = draw(case)
        if source == "packed":
            given = replace(given, source=pack_claims(given.source))
        assert_same(run_pass(make_dispatch(isa, 1), given), run_pass(NUMPY, given))


@pytest.mark.parametrize("isa", NATIVE)
@pytest.mark.parametrize("probes", [0, 1])
@pytest.mark.parametrize("images", [0, 1, 2])
@pytest.mark.parametrize("masked", [False, True])
def test_an_activation_that_passes_through(isa: Isa, probes: int, images: int, masked: bool) -> None:
    for batch, count in ((1, 48), (3, 1040), (4, 2080), (4, 2063), (65, 1056)):
        given = draw(Case(batch, count, probes=probes, images=images, masked=masked))
        rng = np.random.default_rng(count)
        values = rng.integers(-(2**15), 2**15, (batch, count), dtype=np.int16)
        given = replace(given, source=values, mask_image=None, program=None)
        assert_same(run_pass(make_dispatch(isa, 1), given), run_pass(NUMPY, given))
        written = np.zeros_like(values)
        assert_same(run_pass(make_dispatch(isa, 1), given, values_out=written), run_pass(NUMPY, given))
        assert np.array_equal(written, values)


# the digits of these are all the lowest, all the highest, and in turns; and the largest element there is
EXTREME_IMAGES = (
    2**51 - 2**38 - 2**25 - 2**12,
    4095 * (2**39 + 2**26 + 2**13 + 1),
    2**51 - 2**38 + 4095 * 2**13 - 2**12,
    P - 1,
    0,
)


@pytest.mark.parametrize("isa", NATIVE)
@pytest.mark.parametrize("claim", [-(2**31), -1, 2**31 - 1])
@pytest.mark.parametrize("image", EXTREME_IMAGES)
def test_the_largest_sums_of_digits_do_not_overflow(isa: Isa, claim: int, image: int) -> None:
    """Over more tiles than are summed before they are reduced, with the widest activations."""
    batch, count = 4, (2048 + 3) * 1024 + 544
    operations = (Affine("m", "b"),)
    tensors = {"m": np.ones(1, np.float32), "b": np.zeros(1, np.float32)}
    step = Pointwise("p", "s", operations, Activation((count,), 2.0**-20, 15))
    given = replace(
        draw(Case(batch, 1, operations)),
        source=np.full((batch, count), claim, np.int32),
        probes=(np.full(count, P - 1, np.uint64),),
        program=prepare_program(step, tensors, {}),
        probe_images=(np.full(count, image, np.uint64),),
    )
    result = run_pass(make_dispatch(isa, 1), given)
    value = max(-16383, min(16383, claim * 2**20))
    assert result.source_dots.tolist() == [[claim * (P - 1) * count % P]] * batch
    assert result.output_dots.tolist() == [[value * image * count % P]] * batch


@pytest.mark.parametrize("isa", NATIVE)
def test_the_sums_of_very_many_tiles_do_not_overflow(isa: Isa) -> None:
    """Unless they were reduced meanwhile, 8,200 tiles of the largest products would not fit."""
    batch, count, claim = 4, 9000 * 1024, -(2**31) + 1
    given = draw(Case(batch, 1, PROGRAMS[0], images=0))
    source, probe = np.full((batch, count), claim, np.int32), np.full(count, P - 1, np.uint64)
    result = run_pass(make_dispatch(isa, 1), replace(given, source=source, probes=(probe,), kept=False))
    assert result.source_dots.tolist() == [[claim * (P - 1) * count % P]] * batch


@pytest.mark.parametrize("isa", NATIVE)
@pytest.mark.parametrize("value", [-(2**15), 2**15 - 1])
@pytest.mark.parametrize("image", EXTREME_IMAGES)
def test_the_largest_activations_that_pass_through(isa: Isa, value: int, image: int) -> None:
    batch, count = 4, 3 * 1024 + 544
    given = replace(
        draw(Case(batch, count, probes=0)),
        source=np.full((batch, count), value, np.int16),
        program=None,
        probe_images=(np.full(count, image, np.uint64),),
    )
    result = run_pass(make_dispatch(isa, 1), given)
    assert result.output_dots.tolist() == [[value * image * count % P]] * batch


@pytest.mark.parametrize("isa", NATIVE)
@pytest.mark.parametrize("claim", [-(2**31), 2**31 - 1])
def test_activations_wider_than_a_plan_has(isa: Isa, claim: int) -> None:
    """Their sums of digits would overflow, so they are not taken apart."""
    tensors = {"m": np.ones(1, np.float32), "b": np.zeros(1, np.float32)}
    step = Pointwise("p", "s", (Affine("m", "b"),), Activation((2048,), 1.0, 15))
    program = replace(prepare_program(step, tensors, {}), output=Requantisation(np.float32(1), 32767))
    source, image = np.full((4, 2048), claim, np.int32), np.full(2048, EXTREME_IMAGES[0], np.uint64)
    given = replace(draw(Case(4, 2048)), source=source, program=program, probe_images=(image,))
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
@pytest.mark.parametrize("batch", [3, 4])
def test_results_written_past_the_caches(
    isa: Isa, masked: bool, skip: int, batch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fused, "_STREAM_ELEMENTS", 1)
    monkeypatch.setattr(fused, "_STREAM_VALUES", 1)
    given = draw(Case(batch, count=3072, period=48, operations=PROGRAMS[1], masked=masked))
    size = given.source.size
    values = np.zeros(size + 64, np.int16)[skip : skip + size].reshape(given.source.shape)
    blinded = np.zeros(size + 64, np.int32)[skip : skip + size].reshape(given.source.shape) if masked else None
    got = run_pass(make_dispatch(isa, 1), given, values_out=values, blinded_out=blinded)
    assert_same(got, run_pass(NUMPY, given))
