"""What this machine has for Slalom, and what is missing: looked at, tried, and applied to nobody."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

import numpy as np

from slalom.arithmetic.dispatch import Dispatch, Isa, available_isas, make_dispatch
from slalom.arithmetic.engine import LinearEngine
from slalom.arithmetic.field import Elements, P
from slalom.arithmetic.fused import PassInput, run_pass
from slalom.arithmetic.pointwise import prepare_program
from slalom.errors import DeviceError, SlalomError
from slalom.isolation.survey import Survey, survey
from slalom.plan import Plan
from slalom.plan.steps import (
    Accumulator,
    Activation,
    Affine,
    Apply,
    Dense,
    Function,
    Graph,
    Input,
    Layout,
    Linear,
    Output,
    Pointwise,
    Real,
)
from slalom.session import Session
from slalom.worker.boot import search_path

PACKAGES = ("numpy", "cryptography", "torch", "triton", "py-landlock", "pyseccomp", "typer", "rich", "pillow")

OPTIONAL = "gpu"  # what a session works without

_PROBE_SECONDS = 120.0


@dataclass(frozen=True)
class Trial:
    """Something that was tried: what came of it, and what to do where it did not work."""

    name: str
    passed: bool
    found: str
    hint: str | None = None


@dataclass(frozen=True)
class Diagnosis:
    """All that was found. `trusted`: trials of the trusted kernels; `worker`: of a worker and what it computes with."""

    packages: dict[str, str | None]
    survey: Survey
    isa: str
    trusted: tuple[Trial, ...]
    worker: tuple[Trial, ...]

    @property
    def sound(self) -> bool:
        """Whether everything that a session needs works. What protects more may still be missing."""
        return all(trial.passed for trial in (*self.trusted, *self.worker) if trial.name != OPTIONAL)


def diagnose(progress: Callable[[str], object] = lambda doing: None) -> Diagnosis:
    """Looks at this machine and tries its kernels and a worker. Takes a few seconds."""
    progress("testing the trusted kernels")
    trusted = tuple(_try_isa(isa) for isa in available_isas())
    progress("asking torch in a process of its own")
    engines = _try_engines()
    progress("starting a worker")
    worker = (*engines, _try_worker())
    packages = {name: _version_of(name) for name in PACKAGES}
    return Diagnosis(packages, survey(), available_isas()[-1].value, trusted, worker)


def _version_of(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _try_isa(isa: Isa) -> Trial:
    """The linear engine's own test, and the fused pass beside its reference, on extreme and random words."""
    dispatch = make_dispatch(isa, threads=1)
    try:
        LinearEngine(dispatch)
        exact = _is_pass_exact(dispatch)
    except DeviceError as error:
        return Trial(isa.value, False, str(error), "this processor must not be used: its arithmetic is not exact")
    if not exact:
        return Trial(isa.value, False, "the fused pass is not exact", "this processor must not be used")
    return Trial(isa.value, True, "exact: linear engine and fused pass")


def _is_pass_exact(dispatch: Dispatch) -> bool:
    plan = tiny_plan(64)
    random = np.random.default_rng(0)  # figures, not secrets
    source = random.integers(-(2**31), 2**31, (3, 64 * 40), dtype=np.int32)
    source[:, :4] = [-(2**31), 2**31 - 1, 0, -1]
    probe: Elements = random.integers(0, P, source.shape[1:], dtype=np.uint64)
    mask = random.integers(-(2**31), 2**31, source.shape, dtype=np.int32)
    step = next(
        step for step in plan.graph.steps if isinstance(step, Pointwise) and isinstance(step.output, Activation)
    )
    given = PassInput(source, mask, (probe,), prepare_program(step, plan.tensors, plan.types), {}, (probe,), mask)
    fast, plain = run_pass(dispatch, given), run_pass(make_dispatch(Isa.NUMPY, 1), given)
    dots = np.array_equal(fast.source_dots, plain.source_dots) and np.array_equal(fast.output_dots, plain.output_dots)
    blinded = fast.blinded is not None and plain.blinded is not None and np.array_equal(fast.blinded, plain.blinded)
    return dots and blinded and np.array_equal(fast.values, plain.values)


def tiny_plan(channels: int = 8) -> Plan:
    """A network of two dense layers on `channels` numbers, to try things with."""
    bound = 127 * 127 * channels
    hidden = Activation((channels,), 2.0**-4, 8)
    affine = Affine("multiplier", "bias")
    steps = (
        Linear("first", "x", (Dense("w"),), Accumulator((channels,), bound)),
        Pointwise("hidden", "first", (affine, Apply(Function.RELU)), hidden),
        Linear("second", "hidden", (Dense("w"),), Accumulator((channels,), bound)),
        Pointwise("y", "second", (affine,), Real((channels,))),
    )
    entry = Input("x", Layout.PLAIN, Activation((channels,), 2.0**-4, 8))
    tensors: dict[str, np.ndarray] = {
        "w": (np.arange(channels * channels) % 127).astype(np.int8).reshape(channels, channels),
        "multiplier": np.full(channels, 2.0**-14, np.float32),
        "bias": np.full(channels, 0.5, np.float32),
    }
    return Plan(Graph("tiny", entry, steps, (Output("y", Layout.PLAIN),)), tensors)


def _try_engines() -> tuple[Trial, ...]:
    """What `worker.probe` finds in a process of its own: torch's engines and a GPU."""
    command = [sys.executable, "-I", "-c", _PROBE, json.dumps(search_path())]
    try:
        finished = subprocess.run(command, capture_output=True, text=True, timeout=_PROBE_SECONDS, check=False)
        found = json.loads(finished.stdout)
    except (subprocess.TimeoutExpired, ValueError):
        found = [{"name": "torch", "passed": False, "found": "the process that asks torch died", "hint": None}]
    return tuple(Trial(**trial) for trial in found)


_PROBE = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from slalom.worker.probe import probe; print(json.dumps(probe()))"
)


def _try_worker() -> Trial:
    """Starts a worker as a session would, checks one answer of it, and sends it an empty message."""
    begin = time.perf_counter()
    images = np.ones((2, 8), np.float32)
    try:
        with (
            Session(tiny_plan(), protection="private") as session,
            Session(tiny_plan(), protection="enclave") as inside,
        ):
            exact = np.array_equal(session.run(images), inside.run(images))
            seconds = time.perf_counter() - begin
            isolation = session.workers[0].isolation
    except SlalomError as error:
        return Trial("worker", False, str(error), error.hint)
    return Trial("worker", exact, f"starts in {seconds:.1f} s and answers exactly; {isolation}")
