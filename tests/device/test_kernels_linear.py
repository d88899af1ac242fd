"""The linear kernels equal the NumPy reference bit for bit: every geometry, count of digits, tile and part."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from slalom.arithmetic.digits import digit_range, to_digits
from slalom.arithmetic.linear import apply_map
from slalom.errors import ApiMisuse
from slalom.plan.shapes import map_geometry
from slalom.plan.steps import Convolution, Dense
from tests.accelerator import CUDA, DEVICE, pytestmark  # noqa: F401
from tests.arithmetic.geometries import GRID, Case, convolution_case, draw_words
from tests.device.kernel_cases import POISON

from slalom.device.kernels.convolution import DEPTH_LIMIT, convolve, pack_weights  # isort: skip
from slalom.device.kernels.depthwise import convolve_depthwise  # isort: skip
from slalom.device.kernels.packing import pack_claim  # isort: skip
from slalom.device.kernels.stacked import stack_digits  # isort: skip
from slalom.device.kernels.tiles import Tile  # isort: skip

TILES = {
    "default": None,
    "rows": Tile(64, 64, 4, 3),
    "few": Tile(16, 32, 4, 3),
    "parts": Tile(64, 32, 4, 3, parts=3),
    "stacked": Tile(64, 64, 4, 3, stacked=True, block=32),
    "stacked_parts": Tile(128, 32, 4, 3, parts=2, stacked=True, block=32),
}

MORE = {
    **GRID,
    "stacked": convolution_case((7, 5, 32), (3, 2), 40, padding=(1, 0, 2, 1), dilation=(2, 1)),
    "stacked_by_choice": convolution_case((3, 2, 64), (2, 2), 130, padding=(1, 0, 1, 1)),
    "stacked_pointwise_by_choice": convolution_case((5, 7, 64), (1, 1), 258),
    "stacked_strided": convolution_case((7, 5, 48), (1, 1), 24, stride=(2, 3), padding=(1, 0, 0, 2)),
}


def run(case: Case, weight: np.ndarray, words: np.ndarray, digits: int, tile: Tile | None = None) -> np.ndarray:
    geometry = map_geometry(case.linear_map, weight.shape, case.input_shape)
    image = torch.from_numpy(words).to(DEVICE).view(-1, *geometry.input_image)
    out = torch.full((len(words), *geometry.output_image), POISON, dtype=torch.int32, device=DEVICE)
    kernel = torch.from_numpy(weight).to(DEVICE)
    if geometry.group_inputs == 1 and geometry.groups > 1:
        convolve_depthwise(image, kernel.view(geometry.taps, -1), out, geometry)
    else:
        convolve(image, pack_weights(geometry, kernel), out, digits, tile)
    return out.cpu().numpy().reshape(len(words), *geometry.output_shape)


def check(case: Case, words: np.ndarray, weight: np.ndarray, digits: int, tile: Tile | None = None) -> None:
    np.testing.assert_array_equal(run(case, weight, words, digits, tile), apply_map(case.linear_map, weight, words))


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("case", GRID.values(), ids=GRID)
def test_every_word_by_four_digits(case: Case, batch: int) -> None:
    rng = np.random.default_rng(21)
    check(case, draw_words(rng, (batch, *case.input_shape), np.int32), case.draw_weight(rng), 4)


@pytest.mark.parametrize("dtype", [np.int16, np.int32])
@pytest.mark.parametrize("digits", [1, 2])
@pytest.mark.parametrize("case", GRID.values(), ids=GRID)
def test_words_within_fewer_digits(case: Case, digits: int, dtype) -> None:
    rng = np.random.default_rng(22)
    low, high = digit_range(digits)
    words = rng.integers(max(low, -(2**15)), high, (2, *case.input_shape), endpoint=True)
    words.reshape(-1)[:2] = max(low, -(2**15)), high
    check(case, words.astype(dtype), case.draw_weight(rng), digits)


@pytest.mark.parametrize("digits", [pytest.param(1, marks=pytest.mark.slow), 2, 4])
@pytest.mark.parametrize("tile", TILES.values(), ids=TILES)
@pytest.mark.parametrize(
    "name",
    [
        "pointwise_wide",
        "three_by_three",
        "stem",
        "grouped",
        "dense",
        *(name for name in MORE if name.startswith("stacked")),
    ],
)
def test_every_tile_gives_the_same(name: str, tile: Tile | None, digits: int) -> None:
    rng = np.random.default_rng(23)
    case = MORE[name]
    low, high = digit_range(min(digits, 2)) if digits < 4 else (-(2**31), 2**31 - 1)
    words = rng.integers(low, high, (3, *case.input_shape), endpoint=True).astype(np.int32)
    check(case, words, case.draw_weight(rng), digits, tile)


@pytest.mark.parametrize("word", [-(2**31), 2**31 - 1, 0x7F7F7F80 - 2**32, 0x7F7F7F80, 0x7F7F7F7F, -0x7F7F7F80, -1])
@pytest.mark.parametrize("name", ["three_by_three", "grouped", "depthwise", "dense"])
def test_one_extreme_everywhere(name: str, word: int) -> None:
    case = GRID[name]
    words = np.full((2, *case.input_shape), np.int64(word)).astype(np.int32)
    check(case, words, np.full(case.weight_shape, -127, np.int8), 4)


@pytest.mark.skipif(not CUDA, reason="the interpreter does not saturate, and is slow at this depth")
@pytest.mark.parametrize("rows", [16, 64])
@pytest.mark.parametrize("word", [-128, 0x7F7F7F80 - 2**31, -0x7F7F7F80])
def test_a_depth_at_which_one_sum_would_saturate(word: int, rows: int) -> None:
    inputs = DEPTH_LIMIT * 2 + 70
    case = Case(Dense("w"), (inputs, 3), (inputs,))
    words = np.full((2, inputs), word, np.int32)
    check(case, words, np.full((inputs, 3), -127, np.int8), 4, Tile(rows, 16, 4, 3))


@pytest.mark.parametrize("digits", [1, 2, 4])
def test_stacked_rows_are_the_digits(digits: int) -> None:
    words = draw_words(np.random.default_rng(24), (2, 3, 5, 16), np.int32)
    geometry = map_geometry(Convolution("w", (1, 1), (1, 0, 2, 0), (1, 1), 1), (2, 2, 16, 4), words.shape[1:])
    rows, padded = stack_digits(torch.from_numpy(words).to(DEVICE), geometry, digits)
    assert padded == (4, 7)
    expected = to_digits(np.pad(words, ((0, 0), (1, 0), (2, 0), (0, 0))), digits)
    np.testing.assert_array_equal(rows.cpu().numpy().reshape(2, 4, 7, digits, 16), np.moveaxis(expected, 0, 3))


@pytest.mark.parametrize("count", [1, 2, 3, 4, 682, 683, 2048, 4097])
def test_packed_claims_are_the_low_bytes(count: int) -> None:
    claim = np.random.default_rng(25).integers(-(2**23), 2**23, (1, count)).astype(np.int32)
    claim.reshape(-1)[-1] = -(2**23)
    out = torch.empty(3 * count, dtype=torch.uint8, device=DEVICE)
    pack_claim(torch.from_numpy(claim).to(DEVICE), out)
    expected = claim.view(np.uint8).reshape(count, 4)[:, :3]
    np.testing.assert_array_equal(out.cpu().numpy().reshape(count, 3), expected)


def test_misuse_is_refused() -> None:
    geometry = map_geometry(Convolution("w", (1, 1), (0, 0, 0, 0), (1, 1), 1), (1, 1, 2, 2), (3, 3, 2))
    packed = pack_weights(geometry, torch.zeros((1, 1, 2, 2), dtype=torch.int8, device=DEVICE))
    words = torch.zeros((1, 3, 3, 2), dtype=torch.int32, device=DEVICE)
    with pytest.raises(ApiMisuse, match="1, 2 or 4 digits"):
        convolve(words, packed, words, 3)
    with pytest.raises(ApiMisuse, match="packs into"):
        pack_claim(words, torch.empty(5, dtype=torch.uint8, device=DEVICE))
