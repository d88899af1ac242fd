"""Memory of masks comes back once nobody holds what was in it, and not before."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from slalom.trusted.recycling import Recycler
from tests.trusted.test_masks import make_bank

SHAPE = (4, 1000)


def address(array: Any) -> int:
    return int(array.__array_interface__["data"][0])


def test_memory_is_used_again_once_its_array_is_gone() -> None:
    memory = Recycler()
    first = memory.empty(SHAPE)
    place = address(first)
    assert first.shape == SHAPE and first.dtype == np.int32 and first.flags.writeable and place % 64 == 0
    del first
    gc.collect()
    assert address(memory.empty(SHAPE)) == place


VIEWS: dict[str, Callable[[Any], Any]] = {
    "reshape": lambda whole: whole.reshape(-1),
    "slice": lambda whole: whole[1:2],
    "slice of a slice": lambda whole: whole[1:][:, 5:][:1],
    "other type": lambda whole: whole.view(np.uint8),
    "transposed": lambda whole: whole.T,
}


@pytest.mark.parametrize("view", VIEWS)
def test_a_view_keeps_it(view: str) -> None:
    """Else a mask would be written over while a request uses it."""
    memory = Recycler()
    whole = memory.empty(SHAPE)
    whole[:] = 7
    kept = VIEWS[view](whole)
    expected = np.array(kept)
    place = address(whole)
    del whole
    gc.collect()
    for _ in range(3):
        other = memory.empty(SHAPE)
        assert address(other) != place
        other[:] = -1
        np.testing.assert_array_equal(kept, expected)
    del kept
    gc.collect()
    assert place in {address(memory.empty(SHAPE)) for _ in range(2)}


def test_at_the_end_nothing_is_kept() -> None:
    memory = Recycler()
    held = memory.empty(SHAPE)
    memory.end()
    del held
    gc.collect()
    assert not memory._returned and not memory._workspace._free


def test_an_empty_array() -> None:
    assert Recycler().empty((3, 0)).shape == (3, 0)


def test_masks_are_made_where_spent_ones_were() -> None:
    bank, _ = make_bank("residual")
    bank.prepare(3)
    (masks,) = bank.reserve([3], 1.0)
    places = {address(masks.take(value).words) for value in bank.maker.values}
    del masks
    gc.collect()
    bank.prepare(3)
    (again,) = bank.reserve([3], 1.0)
    assert places & {address(again.take(value).words) for value in bank.maker.values}
