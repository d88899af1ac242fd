"""`slalom bench`: every row is shown, and what only ran in simulation says so."""

from __future__ import annotations

import pytest

pytest.importorskip("torch")

from slalom.bench import engine, fused
from slalom.cli.screen import SEPARATE
from slalom.trusted.policy import Protection
from tests.cli.running import TINY, answer, slalom


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Arrays so small that the figures mean nothing and the test is quick."""
    monkeypatch.setattr(fused, "MEMORY_COUNT", 64 * 100)
    monkeypatch.setattr(engine, "REPEATS", 1)


def test_json() -> None:
    found = answer("bench", TINY, "--batch-size", 2, "--threads", 1)
    assert [row["name"] for row in found["levels"]] == ["float", *Protection]
    assert found["platform"] == SEPARATE
    assert found["model"] == TINY and len(found["plan_digest"]) == 64
    for row in found["fused_pass"]:
        assert row["ratio"] == row["median"] / row["copy"] > 0
    assert [row["level"] for row in found["boundary"]] == ["verified", "private"]
    assert all(row["ratio"] > 0 for row in found["boundary"])
    assert 0 < found["round_trip"]["p10"] <= found["round_trip"]["median"] <= found["round_trip"]["p90"]
    assert {row["layer"] for row in found["linear_engine"]} == {layer.name for layer in engine.LAYERS}


def test_kernels_alone() -> None:
    found = answer("bench", "--kernels-only", "--isa", "portable")
    assert found["levels"] == [] and found["model"] is None and found["plan_digest"] is None
    assert found["isa"] == "portable" and {row["isa"] for row in found["fused_pass"]} == {"portable"}


def test_the_tables_fit_eighty_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    result = slalom("bench", TINY, "--batch-size", 2)
    assert (result.exit_code, result.stderr) == (0, "")
    assert max(map(len, result.stdout.splitlines())) <= 80
    for word in (
        "simulation",
        "bytes/element",
        "p10 - p90",
        "of copy",
        "GMAC/s",
        "images/s",
        "depthwise",
        "private",
        "empty message",
    ):
        assert word in result.stdout
