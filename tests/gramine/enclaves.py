"""A virtual environment and a Gramine made for the tests: the one finds this very source, the other is two files."""

from __future__ import annotations

import copy
import sys
import venv
from pathlib import Path
from typing import Any

import numpy

import slalom
from tests.devices import plan_of

OWN = ("libc.so.6", "libm.so.6", "ld-linux-x86-64.so.2")


def make_gramine(folder: Path) -> Path:
    """A folder with the names that Gramine 1.9 installs."""
    runtime = folder / "runtime" / "glibc"
    runtime.mkdir(parents=True)
    (folder / "libsysdb.so").write_bytes(b"library operating system")
    for name in OWN:
        (runtime / name).write_bytes(name.encode())
    return folder


def make_python(folder: Path) -> Path:
    """An interpreter that finds slalom and its dependencies under -I, by the one way a test has: a .pth file."""
    venv.create(folder, with_pip=False, symlinks=True)
    packages = folder / "lib" / f"python3.{sys.version_info.minor}" / "site-packages"
    paths = [Path(slalom.__file__).parents[1], Path(numpy.__file__).parents[1]]
    (packages / "slalom.pth").write_text("\n".join(map(str, paths)), encoding="utf-8")
    return folder / "bin" / "python"


def make_plan(folder: Path, name: str = "residual") -> Path:
    """A tiny plan as a file."""
    path = folder / f"{name}.slalom"
    plan_of(name).save(path)
    return path


SOUND: dict[str, Any] = {
    "loader": {
        "log_level": "error",
        "entrypoint": {"uri": "file:/gramine/libsysdb.so", "sha256": "0" * 64},
        "argv": ["/venv/bin/python", "-I", "-B", "-m", "slalom.cli", "eval", "/p.slalom", "--protection", "private"],
        "env": {"LD_LIBRARY_PATH": "/lib:/usr/lib/x86_64-linux-gnu", "HOME": "/tmp"},
    },
    "libos": {"entrypoint": "/venv/bin/python"},
    "sys": {"stack": {"size": "2M"}, "disallow_subprocesses": True},
    "fs": {
        "root": {"type": "tmpfs"},
        "mounts": [
            {"type": "tmpfs", "path": "/tmp"},
            {"path": "/venv", "uri": "file:/venv"},
            {"type": "untrusted_shm", "path": "/dev/shm", "uri": "dev:/dev/shm"},
        ],
    },
    "sgx": {
        "debug": False,
        "edmm_enable": False,
        "enclave_size": "1G",
        "max_threads": 12,
        "isvprodid": 0,
        "isvsvn": 0,
        "remote_attestation": "dcap",
        "cpu_features": {"avx512": "unspecified"},
        "file_check_policy": "strict",
        "allowed_files": ["dev:/dev/shm"],
        "trusted_files": [{"uri": "file:/venv/bin/python", "sha256": "0" * 64}],
    },
}


def changed(path: str, value: Any) -> dict[str, Any]:
    """A sound manifest with one entry put in the place of another; a number in the path is an index of a list."""
    document = copy.deepcopy(SOUND)
    *tables, last = path.split("/")
    target: Any = document
    for name in tables:
        target = target[int(name)] if isinstance(target, list) else target[name]
    if isinstance(target, list):
        target.append(value)
    else:
        target[last] = value
    return document
