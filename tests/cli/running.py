"""Runs of the command line, in this process or in one of their own."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from typer.testing import CliRunner, Result

from slalom.cli.app import app
from slalom.errors import SlalomError

ROOT = Path(__file__).parents[2]
TINY = "tests.cli.networks:tiny"
PHOTOGRAPHIC = "tests.cli.networks:Photographic"


def slalom(*arguments: object) -> Result:
    """`slalom` with these arguments, in this process; `eval` with the device in it too, unless one is named."""
    words = [str(argument) for argument in arguments]
    if words[:1] == ["eval"] and "--device" not in words:
        words += ["--device", "cpu"]
    return CliRunner().invoke(app, words, prog_name="slalom")


@contextmanager
def worker(plan: Path, listen: str, *arguments: object) -> Iterator[str]:
    """A running `slalom worker`; yields its endpoint once it listens."""
    command = [sys.executable, "-m", "slalom.cli", "worker", "--plan", str(plan), "--listen", listen]
    pipe = subprocess.PIPE
    with subprocess.Popen(
        [*command, *map(str, arguments)], cwd=ROOT, text=True, stdout=pipe, stderr=subprocess.DEVNULL
    ) as running:
        try:
            assert running.stdout is not None
            yield running.stdout.readline().strip()
        finally:
            running.kill()


def answer(*arguments: object) -> dict[str, Any]:
    """The JSON document of a run that must succeed and write nothing else to stdout."""
    result = slalom(*arguments, "--json")
    assert result.exit_code == 0, result.stderr
    document = json.loads(result.stdout, parse_constant=_refuse)
    assert isinstance(document, dict)
    return document


def _refuse(name: str) -> None:
    raise AssertionError(f"{name} is not JSON")


def assert_refused(result: Result, kind: type[SlalomError], *words: str, hint: bool = True) -> None:
    """One line, one hint where one is due, the exit code of the error's class, nothing on stdout, no traceback."""
    lines = result.stderr.splitlines()
    assert result.exit_code == kind.exit_code, result.stderr
    assert isinstance(result.exception, SystemExit), result.exception
    assert result.stdout == ""
    assert len(lines) == 1 + hint, lines
    assert lines[0].startswith("slalom: ")
    assert not hint or lines[1].startswith("  hint: ")
    for word in words:
        assert word in result.stderr


def process(*arguments: object, **options: Any) -> subprocess.CompletedProcess[str]:
    """`slalom` in a process of its own, from the root of the repository."""
    command = [sys.executable, "-m", "slalom.cli", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, text=True, capture_output=True, check=False, timeout=240, **options)
