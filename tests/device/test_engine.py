"""The torch engine equals the NumPy reference bit for bit, by every product, geometry and kind of words."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from slalom.arithmetic.linear import apply_map, apply_maps
from slalom.device import engine as engine_module
from slalom.device.engine import TorchEngine
from slalom.device.products import ByteProduct, FloatProduct
from slalom.errors import ApiMisuse, DeviceError
from slalom.plan.steps import Convolution, Dense
from tests.arithmetic.geometries import GRID, Case, cases, draw_words

ENGINES = {product.name: TorchEngine([product]) for product in (ByteProduct(), FloatProduct())}


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest) -> TorchEngine:
    return ENGINES[request.param]


def check(engine: TorchEngine, case: Case, words: np.ndarray, weight: np.ndarray) -> None:
    prepared = engine.prepare([case.linear_map], {"w": weight}, case.input_shape)
    claim = engine.apply(prepared, words)
    assert type(claim) is np.ndarray and claim.dtype == np.int32 and claim.flags.c_contiguous
    np.testing.assert_array_equal(claim, apply_map(case.linear_map, weight, words))


@pytest.mark.parametrize("dtype", [np.int16, np.int32])
@pytest.mark.parametrize("case", GRID.values(), ids=GRID)
def test_words_of_the_whole_range(engine: TorchEngine, case: Case, dtype) -> None:
    rng = np.random.default_rng(11)
    check(engine, case, draw_words(rng, (3, *case.input_shape), dtype), case.draw_weight(rng))


@pytest.mark.parametrize("word", [-(2**31), 2**31 - 1, 0x7F7F7F80, 0x7F7F7F7F, -1, 0])
@pytest.mark.parametrize("name", ["three_by_three", "grouped", "depthwise", "dense"])
def test_one_extreme_everywhere(engine: TorchEngine, name: str, word: int) -> None:
    case = GRID[name]
    words = np.full((2, *case.input_shape), word, np.int32)
    check(engine, case, words, np.full(case.weight_shape, -127, np.int8))


@pytest.mark.parametrize("limit", [127, 128, 2047, 16383, 32639, 32640, 2**31 - 1])
def test_every_count_of_digits(limit: int) -> None:
    rng = np.random.default_rng(limit)
    case = GRID["three_by_three"]
    words = rng.integers(-limit, limit, (2, *case.input_shape), endpoint=True)
    words.reshape(-1)[:2] = limit, -limit
    check(ENGINES["bytes"], case, words.astype(np.int32), case.draw_weight(rng))


@pytest.mark.parametrize("patch_bytes", [1, 500, 5_000, 50_000])
def test_chunks_change_nothing(engine: TorchEngine, monkeypatch: pytest.MonkeyPatch, patch_bytes: int) -> None:
    monkeypatch.setattr(engine_module, "_PATCH_BYTES", patch_bytes)
    monkeypatch.setattr(engine_module, "_DEPTHWISE_ELEMENTS", patch_bytes)
    rng = np.random.default_rng(12)
    for name in ("stem", "asymmetric", "dilated", "grouped", "depthwise_strided", "dense_sequence"):
        case = GRID[name]
        check(engine, case, draw_words(rng, (3, *case.input_shape), np.int32), case.draw_weight(rng))


def test_sums_longer_than_one_block_wrap(engine: TorchEngine) -> None:
    features = 2**16 + 3
    words = np.full((1, features), -(2**31), np.int32)
    words[0, -1] = 2**31 - 1
    weight = np.full((features, 2), -127, np.int8)
    prepared = engine.prepare([Dense("w")], {"w": weight}, (features,))
    np.testing.assert_array_equal(engine.apply(prepared, words), apply_map(Dense("w"), weight, words))


def test_a_chain_wraps_between_its_maps(engine: TorchEngine) -> None:
    rng = np.random.default_rng(13)
    maps = (
        Convolution("a", (2, 2), (1, 0, 0, 1), (1, 1), 3),
        Convolution("b", (1, 1), (0, 1, 2, 0), (1, 1), 1),
        Dense("c"),
    )
    shapes = {"a": (3, 3, 1, 3), "b": (2, 1, 3, 5), "c": (5, 4)}
    weights = {name: rng.integers(-127, 128, shape).astype(np.int8) for name, shape in shapes.items()}
    words = draw_words(rng, (3, 8, 8, 3), np.int32)
    prepared = engine.prepare(maps, weights, (8, 8, 3))
    np.testing.assert_array_equal(engine.apply(prepared, words), apply_maps(maps, weights, words))


@settings(deadline=None, max_examples=40)
@given(case=cases(), seed=st.integers(0, 2**32 - 1), dtype=st.sampled_from([np.int16, np.int32]))
def test_any_geometry(case: Case, seed: int, dtype) -> None:
    rng = np.random.default_rng(seed)
    words, weight = draw_words(rng, (2, *case.input_shape), dtype), case.draw_weight(rng)
    for engine in ENGINES.values():
        check(engine, case, words, weight)


def test_words_are_only_read(engine: TorchEngine) -> None:
    case = GRID["three_by_three"]
    words = draw_words(np.random.default_rng(14), (2, *case.input_shape), np.int32)
    before = words.copy()
    words.flags.writeable = False
    check(engine, case, words, np.full(case.weight_shape, 3, np.int8))
    check(engine, case, np.asfortranarray(words), np.full(case.weight_shape, 3, np.int8))
    np.testing.assert_array_equal(words, before)


class SaturatingProduct(ByteProduct):
    """What a processor without VNNI does: s8*s8 as (s8 + 128)*s8 - 128*s8, pairs of products cut to 16 bits."""

    name = "saturating"

    def multiply(self, rows: torch.Tensor, packed: torch.Tensor, out: torch.Tensor) -> None:
        weight = packed.to(torch.int32)
        left = rows.reshape(-1, rows.shape[-1]).to(torch.int32) + 128
        if left.shape[1] % 2:
            left, weight = (
                torch.nn.functional.pad(item, pad) for item, pad in ((left, (0, 1)), (weight, (0, 0, 0, 1)))
            )
        pairs = left[:, 0::2, None] * weight[0::2] + left[:, 1::2, None] * weight[1::2]
        product = pairs.clamp(-(2**15), 2**15 - 1).sum(1) - 128 * weight.sum(0)
        planes = product.to(torch.int32).view(len(rows), *out.shape)
        out.zero_()
        for position in range(len(rows)):
            out.add_(planes[position], alpha=1 << (8 * position))


def test_the_saturating_product_is_right_where_nothing_saturates() -> None:
    rng = np.random.default_rng(15)
    rows, weight = rng.integers(-128, 128, (2, 4, 7)), rng.integers(-20, 21, (7, 3))
    out = torch.empty((4, 3), dtype=torch.int32)
    SaturatingProduct().multiply(torch.tensor(rows), torch.tensor(weight), out)
    np.testing.assert_array_equal(out.numpy(), rows[0] @ weight + 256 * (rows[1] @ weight))


def test_a_product_that_is_not_exact_is_passed_over() -> None:
    assert TorchEngine([SaturatingProduct(), FloatProduct()]).name == "float64"
    with pytest.raises(DeviceError, match="no matrix product is exact"):
        TorchEngine([SaturatingProduct()])


def test_misfits_are_refused(engine: TorchEngine) -> None:
    prepared = engine.prepare([Dense("w")], {"w": np.ones((3, 2), np.int8)}, (3,))
    with pytest.raises(ApiMisuse, match="was given"):
        engine.apply(prepared, np.ones((1, 4), np.int16))
    with pytest.raises(ApiMisuse, match="int16 or int32"):
        engine.apply(prepared, np.ones((1, 3), np.int64))  # type: ignore[arg-type]
