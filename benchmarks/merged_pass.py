"""The frequent forms of a pass: nanoseconds an element, medians.

    python benchmarks/merged_pass.py [--threads 1] [--batch-size 16] [--rounds 9]

`claim`: an affine and relu. `sum`: the same with a residual activation added. `through`: an activation that is dotted
and blinded, such as the maxima of a pool. Each of 56x56x256 random elements an item, under one probe on each side;
`masked`: with a mask image to take off and a mask to put on.
"""

from __future__ import annotations

import argparse
import statistics
import time

import numpy as np

from slalom.arithmetic.dispatch import Dispatch, make_dispatch
from slalom.arithmetic.field import P
from slalom.arithmetic.fused import PassInput, run_pass
from slalom.arithmetic.memory import aligned_copy, aligned_empty
from slalom.arithmetic.pointwise import prepare_program
from slalom.plan.steps import Activation, Add, Affine, Apply, Function, Operation, Pointwise

CHANNELS = 256
COUNT = 56 * 56 * CHANNELS
FORMS = ("claim", "sum", "through")


def draw(form: str, batch: int, masked: bool) -> PassInput:
    """The pass of a form."""
    rng = np.random.default_rng(batch)

    def words() -> np.ndarray:
        return aligned_copy(rng.integers(-(2**28), 2**28, (batch, COUNT), dtype=np.int32))

    def elements() -> np.ndarray:
        return aligned_copy(rng.integers(0, P, COUNT, dtype=np.uint64))

    activation = aligned_copy(rng.integers(-2047, 2048, (batch, COUNT), dtype=np.int16))
    mask = words() if masked else None
    if form == "through":
        return PassInput(activation, None, (), None, {}, (elements(),), mask)
    operations: tuple[Operation, ...] = (Affine("m", "b"), Apply(Function.RELU))
    if form == "sum":
        operations = (operations[0], Add("a"), operations[1])
    step = Pointwise("p", "s", operations, Activation((COUNT,), 0.0071, 12))
    tensors = {"m": np.full(CHANNELS, 2.0**-27, np.float32), "b": np.zeros(CHANNELS, np.float32)}
    program = prepare_program(step, tensors, {"a": Activation((COUNT,), 0.01, 12)})
    image = words() if masked else None
    return PassInput(words(), image, (elements(),), program, {"a": activation}, (elements(),), mask)


def measure(dispatch: Dispatch, given: PassInput, rounds: int) -> float:
    """Median seconds of a pass, its memory ready."""
    values = None if given.program is None else aligned_empty(given.shape, np.int16)
    blinded = None if given.mask is None else aligned_empty(given.shape, np.int32)
    taken = []
    for _ in range(rounds + 1):
        begin = time.perf_counter()
        run_pass(dispatch, given, values_out=values, blinded_out=blinded)
        taken.append(time.perf_counter() - begin)
    return statistics.median(taken[1:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=9)
    words = parser.parse_args()
    with_threads = make_dispatch(None, words.threads)
    for form in FORMS:
        for masked in (False, True):
            seconds = measure(with_threads, draw(form, words.batch_size, masked), words.rounds)
            name = f"{form}, masked" if masked else form
            print(f"{name:16} {seconds / words.batch_size / COUNT * 1e9:6.3f} ns", flush=True)
    with_threads.close()


if __name__ == "__main__":
    main()
