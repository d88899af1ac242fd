"""Where and when figures were made, and of what code: without it a figure says nothing."""

from __future__ import annotations

import platform
import subprocess
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from slalom import __version__
from slalom.bench.float_timing import Versions

UNKNOWN = "unknown"


@dataclass(frozen=True)
class Provenance:
    """The machine and the code of one run. `date` is UTC; `gpu` is empty where there is none."""

    date: str
    commit: str
    processor: str
    gpu: str
    slalom: str
    python: str
    numpy: str
    torch: str
    openvino: str


def find_provenance(gpu: str, versions: Versions, commit: str | None = None) -> Provenance:
    """Of this process now; `commit` stands for what a checkout would say."""
    return Provenance(
        date=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        commit=commit or find_commit(Path(__file__).parent),
        processor=processor(),
        gpu=gpu,
        slalom=__version__,
        python=platform.python_version(),
        numpy=np.__version__,
        torch=versions.torch,
        openvino=versions.openvino,
    )


def find_commit(folder: Path) -> str:
    """The commit of the checkout that a folder is in, "-dirty" where files differ from it; "unknown" outside one."""
    command = ["git", "-C", str(folder), "describe", "--always", "--dirty", "--exclude=*", "--abbrev=12"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return UNKNOWN
    return found.stdout.strip() if found.returncode == 0 else UNKNOWN


def processor() -> str:
    """The processor's name as the system gives it."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
