"""A confined and sealed worker computes what an unconfined one does, with torch and its threads."""

from __future__ import annotations

import pytest

from tests.isolation.machine import ROOT, needs_strict, run

WORK = """
import hashlib, os, sys
from pathlib import Path
from slalom.isolation.confine import begin_confinement
from slalom.isolation.level import Isolation
confinement = begin_confinement(Isolation(sys.argv[1]), readable=[Path(sys.argv[2])], parent=os.getppid())
import numpy as np
import torch
from slalom.device.local import LocalDevice
from tests.devices import linear_steps_of, plan_of
plan = plan_of("residual")
device = LocalDevice(threads=2)
device.load(plan)
report = confinement.seal()
shape = plan.graph.input.output.shape
words = np.random.default_rng(1).integers(-2**11, 2**11, (3, *shape)).astype(np.int16)
results = [claim.words for claim in device.run_ahead(words)] + list(device.run(words))
results += device.compute(linear_steps_of("residual")[:1], words.astype(np.int32))
results.append((torch.ones(300, 300, dtype=torch.int32) * 3).sum().numpy())  # enough to wake the second thread
digest = hashlib.sha256(b"".join(np.ascontiguousarray(one).tobytes() for one in results)).hexdigest()
device.close()
print(len(results), digest, "|", report.summary)
"""


@needs_strict
def test_the_device_on_torch_gives_the_same_bits_confined() -> None:
    pytest.importorskip("torch")
    plain, confined = run(WORK, "off", str(ROOT)), run(WORK, "strict", str(ROOT))
    assert plain.returncode == 0, plain.stderr
    assert confined.returncode == 0, confined.stderr
    computed, summary = confined.stdout.split(" | ")
    assert computed == plain.stdout.split(" | ")[0]
    assert "missing" not in summary
    assert "seccomp" in summary
