"""What only a process of its own shows: signals, pipes, streams, and a real network from end to end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("torch")

from tests.cli.running import ROOT, process

SLOW_TO_MAKE = """
import pathlib, time
from torch import nn

def factory() -> nn.Module:
    pathlib.Path(__file__).with_name("started").touch()
    time.sleep(60)
    return nn.Identity()
"""


@pytest.fixture(scope="module")
def plan_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from slalom import Plan
    from tests.graphs import every_step_graph

    path = tmp_path_factory.mktemp("plans") / "every.slalom"
    Plan(*every_step_graph()).save(path)
    return path


def heed_interrupts() -> None:
    """A test run in the background ignores SIGINT, and its children inherit that."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.mark.parametrize("number", (signal.SIGINT, signal.SIGTERM))
def test_an_interrupted_compilation_leaves_nothing(number: signal.Signals, tmp_path: Path) -> None:
    source = tmp_path / "slow.py"
    source.write_text(SLOW_TO_MAKE)
    output = tmp_path / "out"
    output.mkdir()
    command = [sys.executable, "-m", "slalom.cli", "compile", f"{source}:factory", "-o", str(output / "x.slalom")]
    pipe = subprocess.PIPE
    with subprocess.Popen(
        command,
        cwd=ROOT,
        text=True,
        stdout=pipe,
        stderr=pipe,
        preexec_fn=heed_interrupts,  # noqa: PLW1509 - no threads here, and nothing else resets an ignored signal
    ) as running:
        deadline = time.monotonic() + 60
        while not (tmp_path / "started").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        running.send_signal(number)
        stdout, stderr = running.communicate(timeout=60)
    assert (running.returncode, stdout, stderr) == (130, "", "slalom: interrupted\n")
    assert list(output.iterdir()) == []


@pytest.mark.parametrize("extra", ([], ["--json"]))
def test_a_reader_that_goes_away(plan_file: Path, extra: list[str]) -> None:
    command = [sys.executable, "-m", "slalom.cli", "inspect", str(plan_file), *extra]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=ROOT, text=True, stdout=pipe, stderr=pipe) as running:
        assert running.stdout is not None and running.stderr is not None
        running.stdout.close()  # before it has written anything
        stderr = running.stderr.read()
        running.wait(timeout=60)
    assert running.returncode == 1
    assert stderr == ""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
@pytest.mark.parametrize("extra", ([], ["--json"]))
def test_a_full_disk_behind_stdout(plan_file: Path, extra: list[str]) -> None:
    command = [sys.executable, "-m", "slalom.cli", "inspect", str(plan_file), *extra]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    with Path("/dev/full").open("w") as full:
        result = subprocess.run(
            command, cwd=ROOT, env=environment, text=True, stdout=full, stderr=subprocess.PIPE, check=False, timeout=60
        )
    assert result.returncode == 1
    assert result.stderr == "slalom: input or output: No space left on device\n"


def test_a_narrow_alphabet(plan_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    result = process("inspect", plan_file)
    assert (result.returncode, result.stderr) == (0, "")


def test_efficientnet_on_photos_and_against_a_cheating_device() -> None:
    result = process("eval", "efficientnet_lite0", "--batch-size", 5, "--json")
    assert (result.returncode, result.stderr) == (0, "")
    found = json.loads(result.stdout)
    assert found["protection"] == "private" and found["check"] == "preprocessed" and found["rounds"] == 1
    assert found["images"] == 20
    assert round(20 * found["top1"]) >= 17
    assert round(20 * found["agreement_with_float"]) >= 19
    assert found["soundness_bits"] > 40
    assert found["bytes_to_device"] > 20 * 20e6 and found["bytes_from_device"] > 20 * 20e6
    for field in ("images_per_second", "trusted_seconds", "device_seconds", "max_logit_error"):
        assert found[field] > 0
    assert len(found["plan_digest"]) == len(found["outputs_sha256"]) == 64
    assert found["predictions"][0]["class_name"] == "bull mastiff"

    small = ("--image-size", 64, "--batch-size", 2, "--batches", 1, "--json")
    cheated = process("eval", "efficientnet_lite0", "--attack", "flip_element", *small)
    assert (cheated.returncode, cheated.stdout) == (3, "")
    line, hint = cheated.stderr.splitlines()
    assert line.startswith("slalom: attack 'flip_element' refused: the device's result for step '_blocks.")
    assert hint == "  hint: no answer was given; the session is over"
