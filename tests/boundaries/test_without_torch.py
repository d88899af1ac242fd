"""The trusted side runs where torch and everything else of the outside does not exist."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.environments import run_without

ROOT = Path(__file__).parents[2]

REFUSE = """
import importlib.abc, sys
OUTSIDE = ("torch", "typer", "rich", "PIL", "scipy", "triton", "onnx", "foolbox", "pytest", "hypothesis")
class Refuse(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in OUTSIDE:
            raise ModuleNotFoundError(f"refused: {name}", name=name)
        return None
sys.meta_path.insert(0, Refuse())
"""

RUN = """
import slalom
from tests.devices import NumpyDevice, case_of, plan_of, same
images, expected = case_of("residual", 3)
for protection in ("enclave", "verified", "blinded", "private", "device"):
    for check in ("direct", "batched", "preprocessed"):
        with slalom.Session(plan_of("residual"), protection=protection, check=check, device=NumpyDevice()) as session:
            assert same(session.run(images), expected), (protection, check)
loaded = [name for name in sys.modules if name.split(".")[0] in OUTSIDE]
assert not loaded, loaded
inner = [name for name in sys.modules if name.startswith("slalom.")]
for room in ("device", "importer", "attacks", "zoo", "cli", "bench"):
    assert not [name for name in inner if name.startswith(f"slalom.{room}")], room
"""


def run(code: str) -> subprocess.CompletedProcess[str]:
    """A fresh interpreter that finds this very source."""
    import slalom

    paths = [str(Path(slalom.__file__).parents[1]), str(ROOT), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, env=environment, check=False
    )


def test_a_session_needs_neither_torch_nor_anything_outside() -> None:
    finished = run(REFUSE + RUN)
    assert finished.returncode == 0, finished.stderr


def test_the_refusal_of_these_tests_works() -> None:
    finished = run(REFUSE + "import torch")
    assert finished.returncode == 1
    assert "refused: torch" in finished.stderr


def test_the_device_on_torch_is_missed_by_name() -> None:
    code = "import slalom\nfrom tests.devices import plan_of\ntry:\n    slalom.Session(plan_of('dense'), device='cpu')"
    code += "\nexcept slalom.ApiMisuse as error:\n    print(error, '|', error.hint)"
    finished = run(REFUSE + code)
    assert finished.returncode == 0, finished.stderr
    assert "needs torch, which is not installed | " in finished.stdout


def test_a_worker_without_torch_is_missed_by_name(tmp_path: Path) -> None:
    code = "import slalom\nfrom tests.devices import plan_of\ntry:\n    slalom.Session(plan_of('dense'))"
    code += "\nexcept slalom.DeviceError as error:\n    print(error, '|', error.hint)"
    finished = run_without({"torch"}, tmp_path / "site", "-c", code)
    assert finished.returncode == 0, finished.stderr
    assert "a worker needs torch, which is not installed | install the device extra" in finished.stdout


def test_compiling_is_missed_by_name() -> None:
    finished = run(REFUSE + "import slalom\nslalom.compile")
    assert finished.returncode == 1
    assert "slalom.errors.ApiMisuse: slalom.compile needs torch, which is not installed" in finished.stderr
