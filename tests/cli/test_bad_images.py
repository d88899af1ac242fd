"""Images that a session cannot take: refused by name, and the session goes on."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

pytest.importorskip("torch")

import torch

import slalom
from slalom.errors import ApiMisuse, InputError
from slalom.trusted.policy import Protection
from tests.cli.networks import Tiny

GOOD = np.zeros((2, 3, 12, 12), np.float32)


@pytest.fixture(scope="module")
def plan() -> slalom.Plan:
    calibration = torch.randn(8, 3, 12, 12, generator=torch.Generator().manual_seed(1))
    return slalom.compile(Tiny(), (calibration[:2],), [calibration])


@pytest.fixture(scope="module", params=list(Protection))
def session(plan: slalom.Plan, request: pytest.FixtureRequest) -> Iterator[slalom.Session]:
    with slalom.Session(plan, protection=request.param) as opened:
        yield opened


def _with(value: float) -> np.ndarray:
    images = GOOD.copy()
    images[1, 2, 11, 11] = value
    return images


@pytest.mark.parametrize(
    ("images", "word"),
    [
        (GOOD[0], "shape [batch, 3, 12, 12], not [3, 12, 12]"),
        (GOOD[:, :2], "not [2, 2, 12, 12]"),
        (np.moveaxis(GOOD, 1, -1), "not [2, 12, 12, 3]"),
        (GOOD[:, :, :, :0], "not [2, 3, 12, 0]"),
        (GOOD[:0], "the batch is empty"),
        (GOOD.astype(np.float64), "must be float32, not float64"),
        (GOOD.astype(np.float16), "must be float32, not float16"),
        (GOOD.astype(np.int32), "must be float32, not int32"),
        (GOOD.astype(">f4"), "must be float32, not >f4"),
        (GOOD.astype(object), "must be float32, not object"),
        (_with(np.nan), "NaN or infinite"),
        (_with(np.inf), "NaN or infinite"),
        (_with(-np.inf), "NaN or infinite"),
        (GOOD.tolist(), "must be a NumPy array, not list"),
        (torch.zeros(2, 3, 12, 12), "must be a NumPy array, not Tensor"),
        (None, "must be a NumPy array, not NoneType"),
    ],
)
def test_images(session: slalom.Session, images: object, word: str) -> None:
    before = session.run(GOOD)
    with pytest.raises(InputError) as caught:
        session.run(images)  # type: ignore[arg-type]
    assert word in str(caught.value)
    assert "\n" not in str(caught.value)
    assert np.array_equal(session.run(GOOD), before)


def test_images_of_any_memory_order_are_taken(session: slalom.Session) -> None:
    images = np.random.default_rng(3).standard_normal((2, 3, 12, 12), dtype=np.float32)
    assert np.array_equal(session.run(np.asfortranarray(images)), session.run(images))


def test_a_closed_session(plan: slalom.Plan) -> None:
    session = slalom.Session(plan)
    session.close()
    session.close()
    with pytest.raises(ApiMisuse, match="the session is over"):
        session.run(GOOD)
