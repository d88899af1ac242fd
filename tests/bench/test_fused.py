"""The rows of the fused pass's measurement are whole and name what they measured."""

from __future__ import annotations

import pytest

from slalom.arithmetic.dispatch import make_dispatch
from slalom.bench import fused


def test_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fused, "MEMORY_COUNT", 64 * 100)
    dispatch = make_dispatch(None, 1)
    rows = fused.measure_fused(dispatch)
    assert [(row.from_memory, row.masked) for row in rows] == [(m, p) for m in (False, True) for p in (False, True)]
    # claim 4, activation 2, probe and probe image 8 each for a batch of 8; masked: mask image, mask, blinded
    assert [row.bytes_per_element for row in rows] == [8.0, 20.0, 8.0, 20.0]
    for row in rows:
        assert row.isa == dispatch.isa
        assert 0 < row.p10 <= row.median <= row.p90
        assert row.ratio == row.median / row.copy
