"""The files of a manifest, and nothing else, as the root of a process: what strict leaves of a host."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

_SHELL = 'mount -t proc proc "$1/proc" && root="$1" && shift && exec chroot "$root" "$@"'


def can_chroot() -> bool:
    """Whether this user may make mount namespaces of its own."""
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        return False
    return subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False).returncode == 0


def make_tree(document: dict[str, Any], folder: Path) -> Path:
    """Every trusted file at the place where the mounts put it; no folder of the host is there."""
    mounts = [
        (mount["uri"].removeprefix("file:"), mount["path"]) for mount in document["fs"]["mounts"] if "type" not in mount
    ]
    for entry in document["sgx"]["trusted_files"]:
        path = entry["uri"].removeprefix("file:")
        for source, place in mounts:
            if Path(path).is_relative_to(source):
                target = folder / place.lstrip("/") / Path(path).relative_to(source)
                target = folder / place.lstrip("/") if path == source else target
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(path, target)
    (folder / "lib64").symlink_to("lib")  # where the kernel looks for the loader; Gramine looks in /lib
    for name in ("proc", "tmp"):
        (folder / name).mkdir(exist_ok=True)
    return folder


def run_in(tree: Path, document: dict[str, Any], argv: list[str]) -> subprocess.CompletedProcess[str]:
    """A command with the manifest's environment, in a mount namespace of its own whose root is the tree."""
    words = ["unshare", "--mount", "--pid", "--fork", "/bin/sh", "-c", _SHELL, "sh", str(tree), *argv]
    environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
    return subprocess.run(
        words, capture_output=True, text=True, timeout=240, check=False, env=environment | document["loader"]["env"]
    )
