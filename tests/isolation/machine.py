"""What the machine under the tests offers, and how to start a worker on it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import slalom
from slalom.isolation.survey import survey

ROOT = Path(__file__).parents[2]
OFFERED = survey()
ROOT_USER = os.geteuid() == 0
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join((str(Path(slalom.__file__).parents[1]), str(ROOT)))}

needs_strict = pytest.mark.skipif(
    not OFFERED.strict_possible,
    reason=f"no strict isolation here: landlock abi {OFFERED.landlock_abi}, seccomp {OFFERED.libseccomp}",
)


def run(code: str, *words: str) -> subprocess.CompletedProcess[str]:
    """A fresh worker that runs this code."""
    return subprocess.run([sys.executable, "-P", "-c", code, *words], capture_output=True, text=True, timeout=120,
                          env=ENVIRONMENT, check=False)  # fmt: skip
