"""`slalom bench`: every row is measured and shown, and what only ran in simulation says so."""

from __future__ import annotations

import csv
import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

from slalom.bench import engine, fused, side_by_side
from slalom.cli.screen import SEPARATE, SIMULATION
from slalom.errors import ApiMisuse, InputError
from slalom.trusted.policy import Protection
from tests.cli.running import TINY, answer, assert_refused, slalom

INSIDE = ["torch fp32", *(f"openvino {kind}" for kind in ("fp32", "bf16", "int8"))]
HAS_GPU = sys.modules["torch"].cuda.is_available()
HAS_OPENVINO = importlib.util.find_spec("openvino") is not None


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Arrays so small that the figures mean nothing and the test is quick."""
    monkeypatch.setattr(fused, "MEMORY_COUNT", 64 * 100)
    monkeypatch.setattr(engine, "REPEATS", 1)


@pytest.fixture(scope="module")
def measured() -> dict[str, Any]:
    """One short run of everything, with a spawned worker."""
    patch = pytest.MonkeyPatch()
    patch.setattr(fused, "MEMORY_COUNT", 64 * 100)
    patch.setattr(engine, "REPEATS", 1)
    try:
        short = ("--seconds", 0.02, "--repeats", 2, "--cores", 1)
        return answer("bench", TINY, "--batch-size", 2, *short, "--commit", "abc")
    finally:
        patch.undo()


def test_json(measured: dict[str, Any]) -> None:
    assert measured["platform"] == measured["side_by_side"]["platform"] == SEPARATE
    assert measured["model"] == TINY and len(measured["plan_digest"]) == 64
    for row in measured["fused_pass"]:
        assert row["ratio"] == row["median"] / row["copy"] > 0
    assert {row["layer"] for row in measured["linear_engine"]} == {layer.name for layer in engine.LAYERS}
    assert measured["side_by_side"]["provenance"]["commit"] == "abc"
    assert [row["level"] for row in measured["boundary"]] == ["verified", "private"]
    assert all(row["ratio"] > 0 for row in measured["boundary"])
    assert 0 < measured["round_trip"]["p10"] <= measured["round_trip"]["median"] <= measured["round_trip"]["p90"]


def test_every_row_is_measured_or_said_to_be_left_out(measured: dict[str, Any]) -> None:
    found = measured["side_by_side"]
    rows = {row["name"]: row for row in found["rows"]}
    skipped = {item["name"]: item["reason"] for item in found["skipped"]}
    assert rows.keys() & skipped.keys() == set()
    assert rows.keys() | skipped.keys() == {"torch fp16, GPU", *INSIDE, *Protection}
    assert {"torch fp32", *Protection} <= rows.keys()
    if not HAS_OPENVINO:
        assert skipped["openvino int8"] == "openvino is not installed"
    for row in rows.values():
        assert 0 < row["rate"]["p10"] <= row["rate"]["median"] <= row["rate"]["p90"]
        assert 0 < row["latency"]["p10"] <= row["latency"]["median"] <= row["latency"]["p90"]
        assert row["requests"] >= 2
    inside = max(row["rate"]["median"] for row in rows.values() if row["in_tee"] and row["cores"])
    assert rows["private"]["standing"]["over_in_tee"] == rows["private"]["rate"]["median"] / inside
    assert rows["torch fp32"]["standing"]["over_torch"] == 1.0


def test_bytes_and_stages(measured: dict[str, Any]) -> None:
    rows = {row["name"]: row for row in measured["side_by_side"]["rows"]}
    down = 4 * (6 * 36 + 6 * 36 + 4)  # what three linear steps give
    up = 4 * (3 * 144 + 6 * 36 + 6 * 36)
    assert (rows["private"]["bytes_to_device"], rows["private"]["bytes_from_device"]) == (up, down)
    assert rows["private"]["memory_bytes"] == 2 * (up + down)
    assert rows["verified"]["bytes_to_device"] == 2 * 3 * 144 and rows["verified"]["memory_bytes"] < up + down
    assert rows["enclave"]["bytes_to_device"] == rows["enclave"]["bytes_from_device"] == 0
    for level in Protection:
        stages = rows[level]["stages"]
        assert (stages["masks"] > 0) == level.masked
        assert (stages["device"] > 0) == (level is not Protection.ENCLAVE)
        assert (stages["trusted"] > 0) == (level is not Protection.DEVICE)
        assert rows[level]["standing"]["link_limit"] is None  # nothing went over a link to a GPU
    assert [line["level"] for line in measured["side_by_side"]["timelines"]] == ["verified", "private"]
    for line in measured["side_by_side"]["timelines"]:
        assert {span["side"] for span in line["spans"]} == {"device", "trusted"}
        assert min(span["begin"] for span in line["spans"]) == 0


def test_kernels_alone() -> None:
    found = answer("bench", "--kernels-only", "--isa", "portable")
    assert found["side_by_side"] is None and found["boundary"] == [] and found["round_trip"] is None
    assert found["model"] is None and found["plan_digest"] is None
    assert found["isa"] == "portable" and {row["isa"] for row in found["fused_pass"]} == {"portable"}


def test_the_tables_fit_eighty_columns_and_the_boundary_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    options = ("--batch-size", 2, "--seconds", 0.02, "--repeats", 2, "--cores", 1, "--levels", "verified,private")
    result = slalom("bench", TINY, *options)
    assert (result.exit_code, result.stderr) == (0, "")
    assert max(map(len, result.stdout.splitlines())) <= 80
    for word in ("simulation", "bytes/element", "p10 - p90", "of copy", "GMAC/s", "images/s", "depthwise", "private"):
        assert word in result.stdout
    for word in ("torch fp32", "of in-TEE", "memory limit", "set-up, once", "in process", "spawned", "empty message"):
        assert word in result.stdout
    assert "blinded" not in result.stdout


def test_a_plan_file_a_device_in_this_process_and_lines_that_are_appended(tmp_path: Path) -> None:
    from slalom import Plan
    from tests.graphs import conv_chain_graph

    plan, lines = tmp_path / "chain.slalom", tmp_path / "rows.csv"
    Plan(*conv_chain_graph()).save(plan)
    options = ("--quick", "--rows-only", "--levels", "verified", "--cores", 1, "--device", "cpu", "--append", lines)
    found = answer("bench", plan, *options)
    assert found["fused_pass"] == found["linear_engine"] == found["boundary"] == []
    assert found["platform"] == SIMULATION
    assert [row["name"] for row in found["side_by_side"]["rows"]] == ["verified"]
    reasons = {item["reason"] for item in found["side_by_side"]["skipped"]}
    assert reasons == {"a plan file holds no float network"}
    assert len(lines.read_text("utf-8").splitlines()) == 2
    assert found["side_by_side"]["provenance"]["torch"]


@pytest.mark.parametrize("after", [0, 1, 3])
def test_an_interruption_loses_no_row_that_was_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    found, measure = [], side_by_side.measure_level

    def interrupted(*arguments: Any) -> Any:
        if len(found) == after:
            raise KeyboardInterrupt
        found.append(measure(*arguments))
        return found[-1]

    monkeypatch.setattr(side_by_side, "measure_level", interrupted)
    lines = tmp_path / "rows.csv"
    options = ("--quick", "--cores", 1, "--device", "cpu", "--baselines", "none", "--append", lines)
    result = slalom("bench", TINY, *options)
    assert (result.exit_code, result.stderr.splitlines()[-1]) == (130, "slalom: interrupted")
    text = lines.read_text("utf-8") if lines.exists() else ""
    assert [row["row"] for row in csv.DictReader(text.splitlines())] == [item.row.name for item in found]
    assert ("the run was interrupted" in " ".join(result.stdout.split())) == (after > 0)


@pytest.mark.parametrize(
    "options",
    [
        ("--levels", "private,half"), ("--baselines", "tensorflow"), ("--cores", "0"), ("--cores", "one"),
        ("--cores", "100000"), ("--worker-device", "tpu"), ("--seconds", "-1"), ("--repeats", "0"),
        ("--micro-batches", "0"), ("--device", "nowhere"), ("--kernels-only", "--rows-only"),
    ],
)  # fmt: skip
def test_words_without_meaning(options: tuple[str, str]) -> None:
    result = slalom("bench", TINY, *options)
    assert_refused(result, ApiMisuse, hint="hint: " in result.stderr)


def test_what_cannot_be_appended_to_is_found_before_any_work(tmp_path: Path) -> None:
    lines = tmp_path / "rows.csv"
    lines.write_text("date,speed\n")
    assert_refused(slalom("bench", TINY, "--append", lines), InputError, "other columns")
    assert_refused(slalom("bench", TINY, "--append", tmp_path / "no" / "rows.csv"), InputError, "no directory")
    assert lines.read_text() == "date,speed\n"


@pytest.mark.skipif(not HAS_OPENVINO, reason="needs openvino, which only a machine that compares engines has")
def test_openvino_rows_ran_in_the_numbers_they_are_named_by() -> None:
    found = answer("bench", TINY, "--quick", "--cores", 1, "--levels", "enclave", "--baselines", "openvino")
    for row in found["side_by_side"]["rows"][:-1]:
        assert row["detail"].startswith("3 of 3 layers in")
    assert "openvino int8" in {row["name"] for row in found["side_by_side"]["rows"]}


@pytest.mark.gpu
@pytest.mark.skipif(not HAS_GPU, reason="needs a CUDA device")
def test_the_gpu_and_its_link() -> None:
    found = answer("bench", TINY, "--quick", "--cores", 1, "--worker-device", "cuda")["side_by_side"]
    rows = {row["name"]: row for row in found["rows"]}
    assert found["provenance"]["gpu"] and found["limits"]["gpu_rate"] == rows["torch fp16, GPU"]["rate"]["median"]
    assert min(found["limits"]["to_device"], found["limits"]["from_device"]) > 1e8
    assert 0 < rows["private"]["standing"]["link_share"] < 1.5
    assert json.dumps(found)
