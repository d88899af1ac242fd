"""`slalom eval`: the same answers at every level, every figure in the JSON, photos with and without labels."""

from __future__ import annotations

import hashlib
import itertools
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")

import torch
from PIL import Image

from slalom import Plan, Session, attacks
from slalom.cli.screen import SEPARATE, SIMULATION
from slalom.errors import IntegrityError
from slalom.trusted.policy import Check, Protection
from tests.cli.running import PHOTOGRAPHIC, TINY, answer, assert_refused, slalom

FIELDS = {
    "model", "plan_digest", "weights", "protection", "check", "rounds", "schedule", "platform", "workers", "incidents",
    "tee", "bytes_to_dealer", "bytes_from_dealer", "dealers",
    "soundness_bits", "images", "images_per_second", "seconds", "setup_seconds", "trusted_seconds", "device_seconds",
    "mask_seconds", "masks", "bytes_to_device", "bytes_from_device", "agreement_with_float", "max_logit_error", "top1",
    "outputs_sha256", "memory", "predictions",
}  # fmt: skip


@pytest.fixture(scope="module")
def plan_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("plans") / "photographic.slalom"
    assert slalom("compile", PHOTOGRAPHIC, "-o", path).exit_code == 0
    return path


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five photos without labels; one has markup and a line break in its name."""
    directory = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(5)
    for name in ("a", "b", "[red]c[_d]", "e\nf", "g" * 60):
        pixels = rng.integers(0, 256, (20, 30, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(directory / f"{name}.png")
    return directory


def test_every_level_and_check_gives_the_same_outputs(plan_file: Path) -> None:
    digests = set()
    for level, check in itertools.product(Protection, Check):
        found = answer("eval", plan_file, "--protection", level, "--check", check, "--batch-size", 3, "--batches", 2)
        digests.add(found["outputs_sha256"])
        assert found["check"] == (check if level.checked else None)
        assert (found["soundness_bits"] > 40) == level.checked
    assert len(digests) == 1


def test_rounds_schedules_and_instruction_sets_change_no_output(plan_file: Path) -> None:
    common = ("eval", plan_file, "--batches", 1, "--batch-size", 3)
    plain = answer(*common)
    twice = answer(*common, "--rounds", 2, "--threads", 2)
    layerwise = answer(*common, "--protection", "verified", "--schedule", "layerwise", "--isa", "portable")
    assert plain["outputs_sha256"] == twice["outputs_sha256"] == layerwise["outputs_sha256"]
    assert twice["soundness_bits"] > plain["soundness_bits"] + 50
    assert (twice["rounds"], layerwise["schedule"]) == (2, "layerwise")


def test_json_has_every_field() -> None:
    found = answer("eval", TINY, "--batch-size", 2, "--batches", 2)
    assert set(found) == FIELDS
    assert found["images"] == len(found["predictions"]) == 4
    assert found["top1"] is None
    assert 0 <= found["agreement_with_float"] <= 1
    assert 0 < found["max_logit_error"] < 1
    assert "simulation" in found["tee"] and found["platform"] == SIMULATION
    assert found["incidents"] == []
    assert [worker["in_process"] for worker in found["workers"]] == [True]
    memory = found["memory"]
    assert memory["trusted_steady_bytes"] == sum(memory["trusted_steady_by_kind"].values())
    assert memory["trusted_peak_bytes"] >= memory["trusted_steady_bytes"] + memory["in_flight_peak_bytes"]
    assert 0 < memory["process_resident_bytes"] <= memory["process_peak_resident_bytes"]


def test_a_spawned_worker_gives_the_same_and_says_how_it_is_confined(plan_file: Path) -> None:
    common = ("eval", plan_file, "--batch-size", 2, "--batches", 2)
    inside, outside = answer(*common), answer(*common, "--device", "spawn", "--device", "spawn")
    assert outside["outputs_sha256"] == inside["outputs_sha256"]
    assert outside["platform"] == SEPARATE
    assert [worker["name"] for worker in outside["workers"]] == ["spawn", "spawn"]
    for worker in outside["workers"]:
        assert not worker["in_process"] and "seccomp" in worker["isolation"]


def test_isolation_that_is_off_is_said(plan_file: Path) -> None:
    found = answer("eval", plan_file, "--batches", 1, "--device", "spawn", "--isolation", "off")
    assert "missing: landlock" in found["workers"][0]["isolation"]


def test_a_plan_file_has_no_float_network_beside_it(plan_file: Path) -> None:
    found = answer("eval", plan_file, "--batches", 1)
    assert found["agreement_with_float"] is None and found["max_logit_error"] is None
    assert found["weights"] == "in the plan"
    assert found["plan_digest"] == Plan.load(plan_file).digest


def test_the_digest_is_of_every_output_and_not_of_how_they_were_batched() -> None:
    common = ("eval", "tests.cli.networks:TwoOutputs")
    one, other = (
        answer(*common, "--batch-size", 4, "--batches", 1),
        answer(*common, "--batch-size", 1, "--batches", 4),
    )
    assert one["outputs_sha256"] == other["outputs_sha256"]
    assert len(one["predictions"]) == 4


def test_the_digest_is_that_of_the_api(plan_file: Path) -> None:
    from slalom.bench.evaluate import random_samples
    from slalom.zoo.photos import load_photo, sample_photos

    plan = Plan.load(plan_file)
    assert plan.graph.preprocessing is not None
    images = np.stack([load_photo(photo, plan.graph.preprocessing) for photo in sample_photos()[:2]])
    assert random_samples(plan, 2, 0).images.shape == images.shape
    with Session(plan, protection="enclave") as session:
        outputs = session.run(images)
    assert isinstance(outputs, np.ndarray)
    found = answer("eval", plan_file, "--batch-size", 2, "--batches", 1)
    assert found["outputs_sha256"] == hashlib.sha256(outputs.astype("<f4").tobytes()).hexdigest()


def test_numbers_that_json_has_not_become_null() -> None:
    found = answer("eval", "tests.cli.networks:NeverANumber", "--batch-size", 1, "--batches", 2)
    assert found["max_logit_error"] is None
    table = slalom("eval", "tests.cli.networks:NeverANumber", "--batch-size", 1, "--batches", 1)
    assert table.exit_code == 0 and "largest logit error nan" in table.stdout


# ---------------------------------------------------------------- photos


def test_photos_without_labels_have_no_top1(plan_file: Path, photos: Path) -> None:
    found = answer("eval", plan_file, "--images", photos)
    assert found["images"] == 5 and found["top1"] is None
    assert {item["label"] for item in found["predictions"]} == {None}
    assert "e\nf.png" in {item["image"] for item in found["predictions"]}


def test_labels_give_top1(plan_file: Path, photos: Path, tmp_path: Path) -> None:
    predictions = answer("eval", plan_file, "--images", photos)["predictions"]
    known = [item for item in predictions if item["image"] in ("a.png", "b.png")]
    for item in known:
        (tmp_path / item["image"]).write_bytes((photos / item["image"]).read_bytes())
    wrong = (known[1]["class"] + 1) % 4
    (tmp_path / "labels.csv").write_text(f"file,class\na.png,{known[0]['class']}\nb.png,{wrong}\n")
    assert answer("eval", plan_file, "--images", tmp_path)["top1"] == 0.5
    assert "top-1           1/2 of the labels" in slalom("eval", plan_file, "--images", tmp_path).stdout


def test_photos_left_out_are_counted_on_stderr(plan_file: Path, photos: Path) -> None:
    result = slalom("eval", plan_file, "--images", photos, "--batches", 1, "--batch-size", 2)
    assert result.stderr == "3 of 5 photos left out; --batches 3 takes them all\n"
    assert slalom("eval", plan_file, "--images", photos).stderr == ""


def test_the_sample_photos_carry_labels_only_for_their_own_classes(plan_file: Path) -> None:
    found = answer("eval", plan_file, "--batches", 1, "--batch-size", 2)
    assert found["predictions"][0]["image"] == "imagenet_00_243.jpg"
    assert found["predictions"][0]["label"] is None


# ---------------------------------------------------------------- the table


@pytest.mark.parametrize("width", (60, 80, 120))
def test_the_table_fits_and_keeps_every_word(
    plan_file: Path, photos: Path, width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.cli.networks import CLASSES

    monkeypatch.setenv("COLUMNS", str(width))
    found = answer("eval", plan_file, "--images", photos)
    text = slalom("eval", plan_file, "--images", photos).stdout
    assert max(map(len, text.splitlines())) <= width
    assert "photographic" in text.lower() and "(simulation)" in text and SIMULATION[:20] in text
    assert "[red]c[_d].png" in text and "e\\nf.png" in text
    for item in found["predictions"]:
        assert item["class_name"] in CLASSES
        assert item["class_name"].split(" ")[0] in text


def test_the_table_of_a_level_without_checks_says_so(plan_file: Path) -> None:
    text = slalom("eval", plan_file, "--batches", 1, "--protection", "blinded").stdout
    assert "none: nothing is checked" in text and "uniform noise" in text


# ---------------------------------------------------------------- attacks and weights


@pytest.mark.parametrize(
    "attack",
    [pytest.param(name, marks=[pytest.mark.slow] if index % 5 else []) for index, name in enumerate(attacks.names())],
)
def test_every_attack_is_refused_with_its_step(plan_file: Path, attack: str) -> None:
    result = slalom("eval", plan_file, "--attack", attack, "--batch-size", 4, "--batches", 2, "--json")
    assert_refused(result, IntegrityError, f"attack '{attack}' refused", "step")


def test_a_checkpoint_of_the_user(tmp_path: Path) -> None:
    path = tmp_path / "mine.pt"
    from tests.cli.networks import Tiny

    torch.manual_seed(8)
    torch.save(Tiny().state_dict(), path)
    found = answer("eval", TINY, "--weights", path, "--batches", 1)
    assert found["weights"].startswith("file: mine.pt, sha256 ")
    assert found["plan_digest"] != answer("eval", TINY, "--batches", 1)["plan_digest"]
    assert found["max_logit_error"] < 0.1
