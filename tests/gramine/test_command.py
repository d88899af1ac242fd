"""`slalom gramine-manifest`: the manifest to stdout or a file, whole or not at all."""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from typer.testing import Result

from slalom.errors import ApiMisuse, ModelError, SlalomError
from slalom.gramine import check_manifest
from tests.cli.running import assert_refused, slalom
from tests.gramine.chroots import can_chroot, make_tree, run_in
from tests.gramine.conftest import Place
from tests.gramine.enclaves import make_gramine


def command(place: Place, *arguments: object, plan_file: Path | None = None) -> Result:
    where = ("--python", place.python, "--gramine", place.gramine)
    return slalom("gramine-manifest", plan_file or place.plan_file, *where, *arguments)


def test_stdout(place: Place) -> None:
    result = command(place, "--enclave-size", "4G", "--rounds", 2)
    assert result.exit_code == 0, result.stderr
    document = tomllib.loads(result.stdout)
    check_manifest(document)
    assert document["sgx"]["enclave_size"] == "4G"
    assert "trusted files" in result.stderr and len(result.stderr.splitlines()) == 1


def test_a_file_is_what_stdout_would_be(place: Place, tmp_path: Path) -> None:
    path = tmp_path / "slalom.manifest"
    path.write_text("before")
    result = command(place, "-o", path)
    assert (result.exit_code, result.stdout) == (0, "")
    assert path.read_text(encoding="utf-8") == command(place).stdout
    assert [found.name for found in tmp_path.iterdir()] == ["slalom.manifest"]


@pytest.mark.parametrize(
    ("arguments", "kind", "words"),
    [
        (("--enclave-size", "256M"), ApiMisuse, "an enclave of 256M is too small: this plan needs 512M"),
        (("--enclave-size", "3G"), ApiMisuse, "is no enclave size"),
        (("--protection", "blinded"), ApiMisuse, "checks nothing"),
        (("--protection", "enclave"), ApiMisuse, "checks nothing"),
        (("--device", "tcp:worker:1"), ApiMisuse, "is no device for an enclave"),
        (("--gramine", "/nowhere"), ModelError, "no Gramine in /nowhere"),
        (("--python", "/nowhere/python"), ModelError, "cannot run /nowhere/python"),
    ],
)
def test_refusals(place: Place, arguments: tuple[object, ...], kind: type[SlalomError], words: str) -> None:
    assert_refused(command(place, *arguments), kind, words)


@pytest.mark.parametrize("option", ["--threads", "--batch-size", "--batches"])
def test_no_count_below_one(place: Place, option: str) -> None:
    assert_refused(command(place, option, 0), ApiMisuse, f"{option} must be at least 1", hint=False)


@pytest.mark.parametrize("option", ["--isv-svn", "--isv-prod-id"])
def test_no_number_above_16_bits(place: Place, option: str) -> None:
    assert_refused(command(place, option, 65536), ApiMisuse, f"{option} must be from 0 to 65535", hint=False)
    assert_refused(command(place, f"{option}=-1"), ApiMisuse, f"{option} must be from 0 to 65535", hint=False)


def test_a_failure_leaves_no_file(place: Place, tmp_path: Path) -> None:
    path = tmp_path / "slalom.manifest"
    assert command(place, "-o", path, "--python", "/nowhere").exit_code != 0
    assert not list(tmp_path.iterdir())


def test_hostile_names(place: Place, tmp_path: Path) -> None:
    folder = tmp_path / 'a"]\n[sgx]\ndebug = true\n#'
    folder.mkdir()
    plan_file = folder / "x.slalom"
    plan_file.write_bytes(place.plan_file.read_bytes())
    result = command(place, plan_file=plan_file)
    assert result.exit_code == 0, result.stderr
    document = tomllib.loads(result.stdout)
    assert document["loader"]["argv"][6] == str(plan_file)
    assert document["sgx"]["debug"] is False
    assert_refused(command(place, plan_file=_template(place, tmp_path)), ModelError, "reads as a template")


def _template(place: Place, folder: Path) -> Path:
    path = folder / "{{ x }}.slalom"
    path.write_bytes(place.plan_file.read_bytes())
    return path


@pytest.mark.skipif(not can_chroot(), reason="needs a mount namespace")
def test_the_listed_files_are_enough(place: Place, tmp_path: Path) -> None:
    """The program runs where nothing but the trusted files exists; the C library is the host's, for want of Gramine."""
    gramine = make_gramine(tmp_path / "gramine")
    _copy_c_library(gramine / "runtime" / "glibc")
    result = slalom("gramine-manifest", place.plan_file, "--python", place.python, "--gramine", gramine)
    document: dict[str, Any] = tomllib.loads(result.stdout)
    tree = make_tree(document, tmp_path / "root")
    argv = [*document["loader"]["argv"][:7], "--protection", "enclave", "--json"]
    finished = run_in(tree, document, argv)
    assert finished.returncode == 0, finished.stderr
    assert '"protection": "enclave"' in finished.stdout
    (tree / str(Path(sys.modules["slalom.trusted.walk"].__file__ or "")).lstrip("/")).unlink()
    assert "slalom.trusted.walk" in run_in(tree, document, argv).stderr  # and it was this very source that ran


def _copy_c_library(runtime: Path) -> None:
    host = Path("/lib/x86_64-linux-gnu")
    for name in ("libc.so.6", "libm.so.6", "ld-linux-x86-64.so.2", "libpthread.so.0", "libdl.so.2", "librt.so.1"):
        (runtime / name).write_bytes((host / name).read_bytes())
        (runtime / name).chmod(0o755)
