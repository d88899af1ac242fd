"""`slalom inspect`: figures that are those of the session, and tables that fit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")

from slalom import Plan, Session
from slalom.bench.evaluate import random_samples
from slalom.device.local import LocalDevice
from slalom.link.calls import CallAnswering
from slalom.link.message import Bulk
from slalom.link.region import Region
from slalom.plan.footprint import gpu_footprint
from slalom.trusted.policy import Check, Protection
from tests.cli.running import TINY, answer, slalom
from tests.link.serving import Servant, options_of, reach


@pytest.fixture(scope="module")
def plan_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("plans") / "tiny.slalom"
    assert slalom("compile", TINY, "-o", path).exit_code == 0
    return path


@pytest.mark.parametrize("check", Check)
@pytest.mark.parametrize("level", [level for level in Protection if level is not Protection.DEVICE])
def test_bytes_are_those_that_a_session_counts(plan_file: Path, level: Protection, check: Check) -> None:
    found = answer("inspect", plan_file, "--check", check, "--rounds", 2)
    plan = Plan.load(plan_file)
    with Session(plan, protection=level, check=check, rounds=2) as session:
        session.run(random_samples(plan, 1, 0).images)
        report = session.report
    counted = {kind: size for kind, size in report.steady_bytes.items() if kind != "mask_images"}
    memory = found["memory"][level]
    predicted = dict(memory["steady_by_kind"])
    assert predicted.keys() == counted.keys()
    assert memory["steady_bytes"] == sum(predicted.values()) <= memory["peak_bytes"]
    assert predicted.pop("weights", 0) <= counted.pop("weights", 0)  # small layers are padded for the kernels
    assert predicted == counted
    if level is not Protection.ENCLAVE:
        assert report.bytes_from_device == found["bytes_from_device_per_image"]
    if level.masked:
        assert report.bytes_to_device == found["bytes_to_device_per_image"]


@pytest.mark.parametrize("streams", [False, True], ids=["cpu", "cuda"])
def test_the_memory_of_a_link_is_what_a_session_maps(plan_file: Path, streams: bool) -> None:
    said = answer("inspect", plan_file)["link"]
    assert (said["images"], said["micro_batches"]) == (16, 2)
    plan, mapped = Plan.load(plan_file), []

    class Watching(CallAnswering):
        def map(self, region: Region, batch: int) -> None:
            mapped.append(region.geometry.size)
            super().map(region, batch)

    options = replace(options_of(Bulk.MEMFD), threads=4)
    device = reach(lambda stream: Servant(LocalDevice(1), stream, answering=Watching, streams=streams), options)
    with Session(plan, device=device, threads=1) as session:
        session.run(random_samples(plan, 32, 0).images)
    assert mapped == [said["cuda_bytes" if streams else "cpu_bytes"]]


def test_the_memory_of_a_gpu(plan_file: Path) -> None:
    said, footprint = answer("inspect", plan_file)["gpu"], gpu_footprint(Plan.load(plan_file))
    assert said == {"images": 16, "weights_bytes": footprint.weights, "bytes": footprint.total(16)}


def test_steps(plan_file: Path) -> None:
    found = answer("inspect", plan_file)
    linear = [step for step in found["steps"] if step["kind"] == "Linear"]
    assert found["linear_steps"] == len(linear) == 3
    assert found["multiply_accumulates"] == 36 * 6 * 27 + 36 * 6 * 9 + 216 * 4
    for step in linear:
        assert step["range_slack_bits"] > 0 and 50.9 < step["soundness_bits"] < 51
        assert step["bytes_from_device"] == 4 * np.prod(step["shape"])


@pytest.mark.parametrize("width", (80, 120))
def test_the_tables_fit(plan_file: Path, width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    result = slalom("inspect", plan_file)
    assert result.stderr == ""
    assert max(map(len, result.stdout.splitlines())) <= width
    for word in (Plan.load(plan_file).digest, "pointwise", "verified", "steady", "at peak", "51.0"):
        assert word in result.stdout
