"""How a worker process begins: a fresh interpreter that reads no environment and finds what its starter finds."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import MappingProxyType

from slalom.worker.options import WorkerOptions

# OpenMP's threads wait for each other by spinning, 300,000 times by default: on processors that are busy with anything
# else, the trusted side among it, a worker then stands still for most of its time.
ENVIRONMENT_DEFAULTS = MappingProxyType({"GOMP_SPINCOUNT": "1000"})

_PROGRAM = (
    "import json, os, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from slalom.worker.entry import main; os._exit(main(sys.argv[2:]))"
)


def worker_command(options: WorkerOptions) -> list[str]:
    """The command line of a worker."""
    return [sys.executable, "-I", "-c", _PROGRAM, json.dumps(search_path()), options.encode()]


def search_path() -> list[str]:
    """Where this process finds packages, but for the folder that it was started in."""
    return [str(Path(entry).resolve()) for entry in sys.path if entry]
