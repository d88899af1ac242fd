"""Environments that lack some packages: a folder of links to those that are wanted, and an interpreter without others.

Processes that such an interpreter starts, the compiler's and the workers, inherit the lack with its search path.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np

import slalom

ROOT = Path(__file__).parents[1]
SITE = Path(np.__file__).parents[1]


def site_without(packages: set[str], folder: Path) -> Path:
    """A folder that links to everything installed but these, by the name that is imported or distributed."""
    lacking = {name.lower().replace("-", "_") for name in packages}
    folder.mkdir(exist_ok=True)
    for entry in SITE.iterdir():
        name = entry.name.split(".")[0].split("-")[0].lower()
        if name not in lacking and not (folder / entry.name).exists() and entry.suffix != ".pth":
            (folder / entry.name).symlink_to(entry)
    return folder


def run_without(packages: set[str], folder: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Python with these arguments, from the root of the repository, where the packages do not exist."""
    site = site_without(packages, folder)
    source = Path(slalom.__file__).parents[1]
    paths = [*([] if source == SITE else [str(source)]), str(site), str(ROOT)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    command = [sys.executable, "-S", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, env=environment, text=True, capture_output=True, check=False, timeout=120)
