"""What is checked is what is used: a claim that changes all the time is refused, or was right when it was read."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence

import numpy as np
import pytest

from slalom.arithmetic.dispatch import make_dispatch
from slalom.arithmetic.fused import PassInput, Pooling, run_pass
from slalom.arithmetic.pointwise import prepare_program
from slalom.errors import IntegrityError
from slalom.link.port import Claim
from slalom.plan import Plan
from slalom.plan.steps import (
    Accumulator,
    Activation,
    Affine,
    Dense,
    Graph,
    Input,
    Layout,
    Linear,
    Output,
    Pointwise,
    Pool,
    Real,
    Reduction,
    ValueType,
    Window,
)
from slalom.session import Session
from tests.devices import NumpyDevice
from tests.isas import FUSED_ISAS

COUNT = 20_000
TRIALS = 30


def wide_plan() -> Plan:
    """One weight, and many rows: the claim is 20000 words whose every one matters."""
    bound = 127 * 100
    steps = (
        Linear("fc", "x", (Dense("w"),), Accumulator((COUNT, 1), bound)),
        Pointwise("y", "fc", (Affine("m", "b"),), Real((COUNT, 1))),
    )
    graph = Graph("wide", Input("x", Layout.PLAIN, Activation((COUNT, 1), 1.0, 8)), steps, (Output("y", Layout.PLAIN),))
    tensors = {"w": np.full((1, 1), 100, np.int8), "m": np.ones(1, np.float32), "b": np.zeros(1, np.float32)}
    return Plan(graph, tensors)


class Flipping(NumpyDevice):
    """Gives a claim whose every word another thread flips between the truth and a lie, at the speed of memory."""

    def __init__(self) -> None:
        self.words: np.ndarray | None = None
        self.stopped = threading.Event()
        self.flipped = threading.Event()
        self.thread = threading.Thread(target=self._flip)
        self.thread.start()

    def _flip(self) -> None:
        while not self.stopped.is_set():
            words = self.words
            if words is None:
                self.stopped.wait(0.001)
                continue
            np.bitwise_xor(words, 1, out=words)  # lets the interpreter go on, and the pass with it
            np.bitwise_xor(words, 1, out=words)
            self.flipped.set()

    def linear(self, step: Linear, words: np.ndarray) -> np.ndarray:
        self.words = None
        claim = super().linear(step, words)
        self.flipped.clear()
        self.words = claim.reshape(-1)
        assert self.flipped.wait(30)
        return claim

    def compute(self, step_names: Sequence[str], words: np.ndarray) -> Sequence[np.ndarray]:
        return [self.linear(self.linear_steps[name], words) for name in step_names]

    def run_ahead(self, activation: np.ndarray) -> Iterator[Claim]:
        yield Claim("fc", self.linear(self.linear_steps["fc"], activation))

    def close(self) -> None:
        self.words = None


@pytest.mark.parametrize("isa", FUSED_ISAS)
@pytest.mark.parametrize("protection", ["verified", "private"])
@pytest.mark.parametrize("check", ["direct", "preprocessed"])
def test_a_claim_that_changes_is_refused_or_was_right(isa: str, protection: str, check: str) -> None:
    plan = wide_plan()
    images = np.random.default_rng(0).integers(-127, 128, (1, COUNT, 1)).astype(np.float32)
    expected = images * np.float32(100)
    device, outcomes = Flipping(), {"right": 0, "refused": 0}
    try:
        for _ in range(TRIALS):
            with Session(plan, protection=protection, check=check, device=device, isa=isa, threads=2) as session:
                try:
                    output = session.run(images)
                except IntegrityError:
                    outcomes["refused"] += 1
                else:
                    np.testing.assert_array_equal(output, expected)
                    outcomes["right"] += 1
    finally:
        device.stopped.set()
        device.thread.join()
    assert sum(outcomes.values()) == TRIALS


SHAPE = HEIGHT, WIDTH, CHANNELS = 128, 128, 64
PIXELS = HEIGHT * WIDTH * CHANNELS


def pass_over(form: str, words: np.ndarray) -> PassInput:
    """One of the forms of a pass whose values are the words, and whose probe is all ones."""
    tensors = {"m": np.ones(CHANNELS, np.float32), "b": np.zeros(CHANNELS, np.float32)}
    output: ValueType = Real((PIXELS,)) if form == "stages" else Activation((PIXELS,), 1.0, 8)
    program = prepare_program(Pointwise("p", "s", (Affine("m", "b"),), output), tensors, {})
    ones, pooling = np.ones(PIXELS, np.uint64), None
    if form == "pooled":
        windows = tuple(Window(2 * k, 2 * k + 2) for k in range(HEIGHT // 2))
        maxima = Activation((HEIGHT // 2, WIDTH // 2, CHANNELS), 1.0, 8)
        pooling = Pooling(Pool("pool", "p", Reduction.MAXIMUM, windows, windows, maxima), SHAPE)
    return PassInput(words, None, (ones,), program, {}, (), None, pooling=pooling)


@pytest.mark.parametrize("isa", FUSED_ISAS)
@pytest.mark.parametrize("form", ["stages", "merged", "shared", "pooled"])
def test_a_pass_reads_a_claim_once(isa: str, form: str) -> None:
    """The dots and the values of one pass are of the same words, whatever another thread does to the claim.

    That one turns one word of every window of 2x2 into the other of 0 and 1, again and again; the rest are 0.
    """
    batch = 4 if form == "shared" else 1  # four items share what is made of the probes
    words, stopped, mixed = np.zeros((batch, PIXELS), np.int32), threading.Event(), 0
    changed = np.zeros((batch, *SHAPE), np.int32)
    changed[:, ::2, 1::2] = 1

    def flip() -> None:
        while not stopped.is_set():
            np.bitwise_xor(words, changed.reshape(words.shape), out=words)

    given, dispatch = pass_over(form, words), make_dispatch(isa, threads=1)
    thread = threading.Thread(target=flip)
    thread.start()
    try:
        begin = time.monotonic()
        while time.monotonic() < begin + (0.5 if mixed else 20):
            result = run_pass(dispatch, given)
            total = result.values.sum(axis=1, dtype=np.float64).astype(np.int64)
            assert total.tolist() == result.source_dots[:, 0].tolist()
            mixed += 0 < total[0] < PIXELS // 4
    finally:
        stopped.set()
        thread.join()
    assert mixed, "the claim never changed during a pass"
