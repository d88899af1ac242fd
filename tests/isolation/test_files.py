"""The allow-list itself, and what is opened besides for a GPU."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from slalom.errors import ApiMisuse
from slalom.isolation import files
from slalom.isolation.files import list_files
from tests.isolation.machine import needs_strict, run


def test_it_holds_the_callers_paths_and_pythons_own(tmp_path: Path) -> None:
    listed = list_files([tmp_path], [tmp_path], gpu=False)
    assert tmp_path in listed.readable
    assert tmp_path in listed.writable
    assert {Path(sys.prefix), Path(sys.base_prefix)} <= set(listed.readable)
    assert not listed.devices
    assert all(path.exists() for path in (*listed.readable, *listed.writable))


def test_the_current_folder_is_not_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", ["", "/nowhere", *sys.path])
    listed = list_files([], [], gpu=False).readable
    assert Path() not in listed
    assert Path("/nowhere") not in listed


@pytest.mark.parametrize(
    "forbidden", ["/", "/proc", "/etc", "/home", "/tmp", "/dev", "/dev/shm", "/var", "/sys", "/run"]
)
def test_the_system_list_gives_no_such_folder(forbidden: str) -> None:
    """What the project itself adds; what the caller and Python name is theirs."""
    for path in (*files.SYSTEM, *files.SINKS, *files.GPU_READABLE):
        assert Path(path) not in (Path(forbidden), *Path(forbidden).parents)


def test_a_path_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    for readable, writable in (([tmp_path / "no"], []), ([], [tmp_path / "no"])):
        with pytest.raises(ApiMisuse, match="which does not exist"):
            list_files(readable, writable, gpu=False)


def test_devices_of_a_gpu_are_listed_where_they_exist() -> None:
    assert list_files([], [], gpu=True).devices == tuple(sorted(Path("/dev").glob("nvidia*")))


GPU = """
import os, socket, tempfile
from pathlib import Path
from slalom.isolation import files
from slalom.isolation.confine import begin_confinement
from slalom.isolation.level import Isolation
files.GPU_DEVICES = "zero"  # stands in for one
report = begin_confinement(Isolation.STRICT, gpu=True).seal()
print(report.summary)
ours = socket.socket(socket.AF_UNIX)
print(os.open("/dev/zero", os.O_RDWR) > 0)
for refused in (lambda: socket.socket(socket.AF_INET), lambda: ours.connect("/x"), lambda: open("/dev/full", "wb")):
    try: refused(); print("done")
    except PermissionError: print("refused")
"""


@needs_strict
def test_what_is_relaxed_for_a_gpu_is_said_and_no_more() -> None:
    """On whatever machine: no GPU is needed, or used."""
    ended = run(GPU)
    lines = ended.stdout.splitlines()
    assert lines[0].endswith("; relaxed for a gpu"), ended.stderr
    assert lines[1:] == ["True", "refused", "refused", "refused"], ended.stderr
