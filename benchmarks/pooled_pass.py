"""A pass that pools as it goes beside a pass and then a pool, taking turns: nanoseconds an element, medians.

    python benchmarks/pooled_pass.py [--threads 1] [--batch-size 16] [--rounds 9]

`unkept` is the pass that writes no activation at all: what pooling can come near to. The layers are VGG16's before its
pools; random claims under one probe, and again with a mask image to take off. Prints one line a layer and kind.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from slalom.arithmetic import fused
from slalom.arithmetic.dispatch import make_dispatch
from slalom.arithmetic.field import P
from slalom.arithmetic.fused import PassInput, Pooling, run_pass
from slalom.arithmetic.memory import aligned_copy, aligned_empty
from slalom.arithmetic.pointwise import prepare_program
from slalom.arithmetic.pooling import pool
from slalom.plan.steps import Activation, Affine, Apply, Function, Pointwise, Pool, Reduction, Window

LAYERS = ((224, 64), (112, 128), (56, 256), (28, 512), (14, 512))  # height and width, channels


def draw(size: int, channels: int, batch: int, masked: bool) -> PassInput:
    """The pass before a 2x2 pool, with pooling."""
    count, rng = size * size * channels, np.random.default_rng(size)
    claims = aligned_copy(rng.integers(-(2**28), 2**28, (batch, count), dtype=np.int32))
    tensors = {"m": np.full(channels, 2.0**-27, np.float32), "b": np.zeros(channels, np.float32)}
    step = Pointwise("p", "s", (Affine("m", "b"), Apply(Function.RELU)), Activation((count,), 0.0071, 12))
    windows = tuple(Window(2 * k, 2 * k + 2) for k in range(size // 2))
    maxima = Activation((size // 2, size // 2, channels), 0.0071, 12)
    return PassInput(
        source=claims,
        mask_image=aligned_copy(claims // 3) if masked else None,
        probes=(aligned_copy(rng.integers(0, P, count, dtype=np.uint64)),),
        program=prepare_program(step, tensors, {}),
        operands={},
        probe_images=(),
        mask=None,
        pooling=Pooling(Pool("pool", "p", Reduction.MAXIMUM, windows, windows, maxima), (size, size, channels)),
    )


def ways(given: PassInput, threads: int) -> dict[str, Callable[[], Any]]:
    """The three passes, each with its memory ready."""
    dispatch, pooling = make_dispatch(None, threads), given.pooling
    if pooling is None:
        raise TypeError("the pass pools")
    batch, count = given.source.shape
    whole, maxima = aligned_empty((batch, count), np.int16), aligned_empty((batch, pooling.count), np.int16)
    kept: dict[tuple[int, ...], np.ndarray] = {}
    plain = replace(given, pooling=None)
    unkept = replace(plain, kept=False)

    def afterwards() -> None:
        run_pass(dispatch, plain, values_out=whole)
        pool(dispatch, pooling.step, whole.reshape(batch, *pooling.shape), lambda shape, _: maxima.reshape(shape))

    def room(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        if shape not in kept:
            kept[shape] = aligned_empty(shape, dtype)
        return kept[shape]

    return {
        "afterwards": afterwards,
        "as it goes": lambda: run_pass(dispatch, given, values_out=maxima, scratch=room),
        "unkept": lambda: run_pass(dispatch, unkept),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    fused._POOLED_ELEMENTS = 0  # so that small layers are pooled as the pass goes too
    for size, channels in LAYERS:
        for masked in (False, True):
            given = draw(size, channels, options.batch_size, masked)
            seconds: dict[str, list[float]] = {}
            passes = ways(given, options.threads)
            for _ in range(options.rounds):
                for name, work in passes.items():
                    begin = time.perf_counter()
                    work()
                    seconds.setdefault(name, []).append(time.perf_counter() - begin)
            found = {name: statistics.median(taken) / given.source.size * 1e9 for name, taken in seconds.items()}
            figures = ", ".join(f"{name} {value:.3f}" for name, value in found.items())
            kind = "masked" if masked else "claims"
            print(f"{size}x{size}x{channels} {kind}: {figures}; ratio {found['afterwards'] / found['as it goes']:.2f}")


if __name__ == "__main__":
    main()
