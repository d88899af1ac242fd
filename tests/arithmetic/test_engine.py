"""The engine equals the NumPy reference bit for bit, on every instruction set and number of threads."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slalom import _native
from slalom.arithmetic import engine as engine_module
from slalom.arithmetic.dispatch import Dispatch, Isa, available_isas, make_dispatch
from slalom.arithmetic.engine import LinearEngine, make_engine, pack_panels
from slalom.arithmetic.linear import apply_map, apply_maps
from slalom.errors import ApiMisuse, DeviceError, ModelError
from slalom.plan.shapes import map_geometry
from slalom.plan.steps import Convolution, Dense
from tests.arithmetic.geometries import GRID, Case, cases, convolution_case, dense_case, draw_words

ISAS = [Isa.TILES, *(isa for isa in available_isas() if isa is not Isa.NUMPY)]
BIG: dict[str, Case] = {
    "blocks_of_pixels": convolution_case((23, 19, 6), (3, 3), 40, padding=(1, 1, 1, 1)),
    "blocks_of_depth": convolution_case((6, 5, 259), (3, 3), 20, padding=(1, 1, 1, 1)),
    "blocks_of_depth_in_place": convolution_case((5, 5, 2060), (1, 1), 16),
    "blocks_of_depth_grouped": convolution_case((5, 4, 3 * 460), (3, 3), 3 * 18, padding=(0, 1, 1, 0), groups=3),
    "wide_in_place": convolution_case((10, 11, 34), (1, 1), 100),
    "dense_deep": dense_case((5001,), 130),
    "depthwise_wide": convolution_case((5, 6, 211), (3, 3), 211, padding=(1, 1, 1, 1), groups=211),
    "one_group_one_channel": convolution_case((9, 9, 1), (3, 3), 32, padding=(1, 1, 1, 1)),
}


@pytest.fixture(scope="module", params=ISAS)
def engine(request: pytest.FixtureRequest) -> LinearEngine:
    return LinearEngine(make_dispatch(request.param, 1))


@pytest.fixture(scope="module", params=[2, 5])
def threaded(request: pytest.FixtureRequest) -> Iterator[LinearEngine]:
    dispatch = make_dispatch(ISAS[-1], request.param)
    yield LinearEngine(dispatch)
    dispatch.close()


def check_case(engine: LinearEngine, case: Case, batch: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    weight = case.draw_weight(rng)
    prepared = engine.prepare([case.linear_map], {"w": weight}, case.input_shape)
    for dtype in (np.int16, np.int32):
        x = draw_words(rng, (batch, *case.input_shape), dtype)
        y = engine.apply(prepared, x)
        assert y.dtype == np.int32
        np.testing.assert_array_equal(y, apply_map(case.linear_map, weight, x))


@pytest.mark.parametrize("case", [*GRID.values(), *BIG.values()], ids=[*GRID, *BIG])
def test_equals_the_reference(engine: LinearEngine, case: Case) -> None:
    check_case(engine, case, 3, 20)


@settings(deadline=None, max_examples=60)
@given(case=cases(), batch=st.integers(1, 5), seed=st.integers(0, 2**32 - 1), isa=st.sampled_from(ISAS))
def test_equals_the_reference_on_any_geometry(case: Case, batch: int, seed: int, isa: Isa) -> None:
    check_case(_ENGINES[isa], case, batch, seed)


_ENGINES = {isa: LinearEngine(make_dispatch(isa, 1)) for isa in ISAS}


@pytest.mark.parametrize("batch", range(1, 30))
def test_every_count_of_rows(engine: LinearEngine, batch: int) -> None:
    check_case(engine, dense_case((37,), 49), batch, 21)


@pytest.mark.parametrize("channels", [1, 2, 3, 15, 16, 17, 31, 32, 33, 47, 63, 64, 65])
def test_every_count_of_channels(engine: LinearEngine, channels: int) -> None:
    check_case(engine, convolution_case((5, 6, 3), (2, 2), channels, padding=(1, 0, 0, 1)), 2, 22)
    check_case(engine, convolution_case((3, 5, channels), (1, 1), 18), 2, 23)
    check_case(
        engine, convolution_case((4, 4, channels), (3, 3), channels, (2, 1), (1, 1, 1, 1), groups=channels), 2, 24
    )


@pytest.mark.parametrize("case", [*GRID.values(), *BIG.values()], ids=[*GRID, *BIG])
@pytest.mark.parametrize("batch", [1, 4])
def test_threads_change_nothing(threaded: LinearEngine, case: Case, batch: int) -> None:
    check_case(threaded, case, batch, 25)


def test_sums_wrap_and_do_not_saturate(engine: LinearEngine) -> None:
    for x in (np.full((1, 3000), -(2**15), np.int16), np.full((1, 3000), -(2**31), np.int32)):
        weight = np.full((3000, 3), -127, np.int8)
        prepared = engine.prepare([Dense("w")], {"w": weight}, (3000,))
        expected = np.full((1, 3), 127 * 3000 * -int(x[0, 0]) % 2**32, np.uint32)
        np.testing.assert_array_equal(engine.apply(prepared, x).view(np.uint32), expected)


def test_a_chain(engine: LinearEngine) -> None:
    rng = np.random.default_rng(26)
    maps = (Convolution("a", (2, 2), (1, 0, 0, 1), (1, 1), 35), Convolution("b", (1, 1), (0, 0, 0, 0), (1, 1), 1))
    weights = {
        "a": rng.integers(-127, 128, (3, 3, 1, 35), np.int8),
        "b": rng.integers(-127, 128, (1, 1, 35, 50), np.int8),
    }
    prepared = engine.prepare(maps, weights, (9, 8, 35))
    assert prepared.output_shape == (4, 4, 50)
    for dtype in (np.int16, np.int32):
        x = draw_words(rng, (3, 9, 8, 35), dtype)
        np.testing.assert_array_equal(engine.apply(prepared, x), apply_maps(maps, weights, x))


def test_a_strided_source_is_read_by_value(engine: LinearEngine) -> None:
    case = GRID["three_by_three"]
    rng = np.random.default_rng(27)
    weight = case.draw_weight(rng)
    prepared = engine.prepare([case.linear_map], {"w": weight}, case.input_shape)
    x = draw_words(rng, (4, *case.input_shape), np.int16)[::2]
    np.testing.assert_array_equal(engine.apply(prepared, x), apply_map(case.linear_map, weight, x))


def test_the_numpy_engine_is_the_reference() -> None:
    check_case(LinearEngine(make_dispatch(Isa.NUMPY, 1)), GRID["stem"], 2, 28)


def test_packed_weights_are_no_bigger_than_the_weights() -> None:
    linear_map, shape = Dense("w"), (64, 48)
    packed = pack_panels(map_geometry(linear_map, shape, (64,)), np.ones(shape, np.int8))
    assert packed.dtype == np.int8
    assert packed.size == 64 * 48


def test_a_result_goes_where_it_is_told(engine: LinearEngine) -> None:
    case = GRID["three_by_three"]
    rng = np.random.default_rng(34)
    weight = case.draw_weight(rng)
    prepared = engine.prepare([case.linear_map], {"w": weight}, case.input_shape)
    x = draw_words(rng, (2, *case.input_shape), np.int32)
    out = np.full((2, *prepared.output_shape), 99, np.int32)
    assert np.shares_memory(engine.apply(prepared, x, out), out)
    np.testing.assert_array_equal(out, apply_map(case.linear_map, weight, x))
    for wrong in (out[:1], out.astype(np.int64), np.empty((4, *prepared.output_shape), np.int32)[::2]):
        with pytest.raises(ApiMisuse, match="another array for its result"):
            engine.apply(prepared, x, wrong)


def test_misuse_is_refused(engine: LinearEngine) -> None:
    weights = {"w": np.ones((4, 2), np.int8)}
    prepared = engine.prepare([Dense("w")], weights, (4,))
    with pytest.raises(ApiMisuse, match="items of"):
        engine.apply(prepared, np.ones((1, 5), np.int16))
    with pytest.raises(ApiMisuse, match="int16 or int32"):
        engine.apply(prepared, np.ones((1, 4), np.int64))
    with pytest.raises(ApiMisuse, match="weights are int8"):
        engine.prepare([Dense("w")], {"w": np.ones((4, 2), np.int16)}, (4,))  # type: ignore[dict-item]
    with pytest.raises(ModelError, match="3 features, the weight 4"):
        engine.prepare([Dense("w")], weights, (3,))


def _saturating(gemm: Callable[..., None]) -> Callable[..., None]:
    """A product that saturates on the rows where every activation is the lowest: what vpdpwssds would do."""

    def sabotaged(*arguments: Any) -> None:
        gemm(*arguments)
        x, y = arguments[3], arguments[5]
        if x.dtype == np.int16 and x.shape[-1] == 1029:
            # 1029 * 127 * 2^15 > 2^31
            y[(x == -(2**15)).all(axis=-1)] = 2**31 - 1

    return sabotaged


def _one_off(kernel: Callable[..., None]) -> Callable[..., None]:
    def sabotaged(*arguments: Any) -> None:
        kernel(*arguments)
        arguments[5].flat[-1] += 1

    return sabotaged


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize(("name", "sabotage"), [("gemm", _one_off), ("depthwise", _one_off), ("gemm", _saturating)])
def test_self_test_finds_an_inexact_kernel(isa: Isa, name: str, sabotage: Callable[..., Any], monkeypatch) -> None:
    monkeypatch.setattr(_native, name, sabotage(getattr(_native, name)))
    with pytest.raises(DeviceError, match=f"this processor's {isa} kernels are not exact"):
        LinearEngine(make_dispatch(isa, 1))


def _only_on_tiles(kernel: Callable[..., None]) -> Callable[..., None]:
    """Inexact where the product is on tiles, exact elsewhere: a processor that saturates there."""

    def sabotaged(*arguments: Any) -> None:
        kernel(*arguments)
        if arguments[0] in (Isa.AMX.code, Isa.TILES.code):
            arguments[5].flat[0] ^= 1

    return sabotaged


def test_an_inexact_kernel_is_left_for_the_next_slower_one(monkeypatch) -> None:
    monkeypatch.setattr(_native, "gemm", _only_on_tiles(_native.gemm))
    engine = make_engine(make_dispatch(Isa.TILES, 1))
    assert engine.isa is [isa for isa in available_isas() if not isa.has_tiles][-1]
    check_case(engine, GRID["three_by_three"], 2, 30)


def test_without_an_exact_compiled_kernel_numpy_is_left(monkeypatch) -> None:
    monkeypatch.setattr(_native, "gemm", _one_off(_native.gemm))
    engine = make_engine(make_dispatch(threads=1))
    assert engine.isa is Isa.NUMPY
    check_case(engine, GRID["three_by_three"], 2, 31)


def test_exact_kernels_are_kept() -> None:
    dispatch = make_dispatch(threads=1)
    assert make_engine(dispatch).isa is dispatch.isa


def test_a_chain_for_other_kernels_is_refused() -> None:
    """Panels of pairs read as quads would be another network."""
    plain, tiles = (LinearEngine(make_dispatch(isa, 1)) for isa in (Isa.PORTABLE, Isa.TILES))
    prepared = plain.prepare([Dense("w")], {"w": np.ones((4, 2), np.int8)}, (4,))
    with pytest.raises(ApiMisuse, match="prepared for portable, and this engine has the kernels of tiles"):
        tiles.apply(prepared, np.ones((1, 4), np.int16))


@pytest.mark.parametrize("rows", [31, 32, 33, 47, 63, 64, 65, 95, 129])
@pytest.mark.parametrize("depth", [63, 64, 65, 2303, 2305, 4700])
def test_every_edge_of_the_tiles(rows: int, depth: int) -> None:
    """Rows in pairs of tiles and blocks of 64; K in chunks of 64 and blocks of 2304; the last panel alone, partial."""
    for isa in (Isa.TILES, Isa.AMX) if Isa.AMX in available_isas() else (Isa.TILES,):
        check_case(_ENGINES[isa], dense_case((depth,), 33), rows, 32)


def test_threads_of_the_background_let_others_go_first() -> None:
    def nice_threads() -> int:
        tasks = [int(task.name) for task in Path("/proc/self/task").iterdir()]
        return sum(os.getpriority(os.PRIO_PROCESS, task) == 19 for task in tasks)

    before = nice_threads()
    dispatch = make_dispatch(threads=4, background=True)
    deadline = time.monotonic() + 20
    while nice_threads() < before + 3 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert nice_threads() == before + 3
    dispatch.close()


def test_self_test_runs_at_construction(monkeypatch) -> None:
    calls: list[Dispatch] = []
    monkeypatch.setattr(engine_module.LinearEngine, "self_test", lambda self: calls.append(self._dispatch))
    dispatch = make_dispatch(ISAS[0], 1)
    LinearEngine(dispatch)
    assert calls == [dispatch]
