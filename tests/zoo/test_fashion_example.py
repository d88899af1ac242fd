"""The Fashion-MNIST example keeps the accuracy of the float network at every protection level."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from slalom.trusted.policy import Protection
from slalom.zoo.fashion_mnist import DEBIAN_DIRECTORY

EXAMPLE = Path(__file__).parents[2] / "examples" / "fashion_mnist.py"


def _run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, str(EXAMPLE), *arguments], capture_output=True, text=True, check=False)


def test_a_missing_dataset_says_where_it_comes_from(tmp_path: Path) -> None:
    finished = _run("--dataset", str(tmp_path))
    assert finished.returncode == 9
    assert finished.stdout == ""
    assert "hint: apt-get install dataset-fashion-mnist" in finished.stderr


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.skipif(not DEBIAN_DIRECTORY.is_dir(), reason="needs Debian's dataset-fashion-mnist")
def test_every_level_has_the_accuracy_of_the_float_network(tmp_path: Path) -> None:
    finished = _run("--cache", str(tmp_path))
    assert finished.returncode == 0, finished.stderr
    table = {words[0]: words[1:] for words in map(str.split, finished.stdout.splitlines()[1:])}
    assert list(table) == ["float", *Protection]
    accuracy = {name: float(words[0].rstrip("%")) for name, words in table.items()}
    assert accuracy["float"] >= 91
    assert accuracy["private"] > accuracy["float"] - 0.5
    assert len({accuracy[level] for level in Protection}) == 1
