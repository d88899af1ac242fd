"""The mask bank on the command line."""

from __future__ import annotations

from pathlib import Path

import pytest

from slalom import Plan
from slalom.arithmetic.keystream import SEED_SIZE
from slalom.errors import ApiMisuse
from slalom.plan.flow import trace_flow
from slalom.plan.mask_cost import mask_cost
from tests.cli.running import answer, assert_refused, slalom
from tests.devices import plan_of


@pytest.fixture(scope="module")
def plan_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("plans") / "residual.slalom"
    plan_of("residual").save(path)
    return path


def test_precompute_makes_spills_and_opens(plan_file: Path, tmp_path: Path) -> None:
    common = ("precompute", plan_file, "--images", 10, "--batch-size", 4, "--threads", 1)
    found = answer(*common, "--spill", tmp_path, "--memory", 0.000_001)
    cost = mask_cost(Plan.load(plan_file))
    assert (found["images"], found["spilled_images"], found["threads"]) == (10, 10, 1)
    assert found["mask_bytes_per_image"] == cost.masks and found["mask_image_bytes_per_image"] == cost.images
    assert found["spilled_bytes"] >= 10 * cost.images
    assert found["opened_seconds"] > 0 and found["images_per_second"] == 10 / found["seconds"]
    assert found["int8_products_per_second"] == cost.products * 10 / found["seconds"]
    assert not list(tmp_path.iterdir())
    shown = slalom(*common)
    assert shown.exit_code == 0 and "destroyed: masks are of use to the session alone" in shown.stdout
    assert "spilled" not in shown.stdout


def test_inspect_says_what_masks_cost(plan_file: Path) -> None:
    found, plan = answer("inspect", plan_file), Plan.load(plan_file)
    cost = mask_cost(plan)
    assert found["masks_per_image"] == {
        "mask_bytes": cost.masks, "mask_image_bytes": cost.images, "int8_products": cost.products,
    }  # fmt: skip
    assert cost.masks == found["bytes_to_device_per_image"] and cost.images == found["bytes_from_device_per_image"]
    assert cost.products == 4 * found["multiply_accumulates"]
    assert found["dealer"]["mask_image_bytes_per_image"] == cost.images
    assert found["dealer"]["seed_bytes_per_micro_batch"] == SEED_SIZE * len(trace_flow(plan.graph).consumers)
    shown = slalom("inspect", plan_file).stdout
    assert "masks of blinded and private" in shown and "a dealer is given" in shown


@pytest.mark.parametrize("policy", ["wait", "compute"])
def test_eval_with_a_bank_gives_the_same_answers(policy: str, plan_file: Path, tmp_path: Path) -> None:
    common = ("eval", plan_file, "--device", "cpu", "--threads", 1, "--batch-size", 4, "--batches", 3)
    plain = answer(*common)
    spill = ("--mask-memory", 0.000_001, "--mask-spill", tmp_path)
    banked = answer(*common, "--mask-bank", 8, "--when-empty", policy, *spill)
    assert banked["outputs_sha256"] == plain["outputs_sha256"]
    assert banked["masks"]["used_images"] == 12 and banked["masks"]["lost_images"] == 0
    assert plain["masks"]["used_images"] == 12 and plain["masks"]["waited_seconds"] == 0
    if policy == "wait":
        assert "mask bank" in slalom(*common, "--mask-bank", 8).stdout


@pytest.mark.parametrize(
    ("options", "pattern"),
    [
        (("--mask-bank", 8, "--protection", "verified"), "for levels with masks"),
        (("--mask-bank", 3), "less than one request"),
        (("--mask-bank", 8, "--when-empty", "pray"), "--when-empty is"),
        (("--mask-bank", 8, "--mask-memory", 0), "--mask-memory must be positive"),
        (("--mask-bank", 8, "--mask-memory", 0.000_000_1), "masks for one micro-batch take"),
        (("--mask-spill", "x"), "for a mask bank"),
    ],
)
def test_refusals(options: tuple[object, ...], pattern: str, plan_file: Path) -> None:
    given = ("eval", plan_file, "--device", "cpu", "--batch-size", 4, *options)
    bare = pattern.startswith("--")
    assert_refused(slalom(*given), ApiMisuse, pattern, hint=not bare)


def test_bench_tells_private_four_ways(plan_file: Path) -> None:
    quick = ("bench", plan_file, "--quick", "--levels", "verified,private", "--baselines", "none", "--device", "cpu")
    found = answer(*quick, "--batch-size", 2, "--masks", "all")
    names = [row["name"] for row in found["side_by_side"]["rows"]]
    assert names == ["verified", "private", "private, refilling", "private, sustained", "private, dealt"]
    assert_refused(slalom(*quick, "--masks", "magic"), ApiMisuse, "unknown way to come by masks")
