"""The pass over a claim in one piece and in pieces of a ring, alone and beside copies from a GPU to the same memory.

    python benchmarks/pieces.py [--threads 16] [--batch-size 16] [--elements 802816] [--rounds 9] [--gpu]

What is measured is memory: all pieces count as there, whatever lies in them, so nothing waits. With `--gpu` a thread
copies from the GPU into the memory that the pass reads, again and again: the whole claim, or the ring. Medians; a line
for each size of a place (0: no ring). Bytes are those of the pass: claims, and at `masked` also mask images, masks and
blinded words.
"""

from __future__ import annotations

import argparse
import statistics
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np

from slalom.arithmetic.dispatch import make_dispatch
from slalom.arithmetic.field import P
from slalom.arithmetic.fused import PassInput, run_pass
from slalom.arithmetic.memory import aligned_copy, aligned_empty
from slalom.arithmetic.pieces import Passage, Ring, StreamedClaim
from slalom.arithmetic.pointwise import prepare_program
from slalom.plan.steps import Activation, Affine, Apply, Function, Pointwise

CHANNELS = 64
PLACES = 4
PLACE_SIZES = (0, 2**21, 2**22, 2**23, 2**24)
TILE = 1024


def draw(batch: int, count: int, masked: bool) -> PassInput:
    """A claim, one probe on each side, an affine and relu; the activation itself is not kept."""
    rng = np.random.default_rng(count)

    def words() -> np.ndarray:
        return aligned_copy(rng.integers(-(2**28), 2**28, (batch, count), dtype=np.int32))

    tensors = {"m": np.full(CHANNELS, 2.0**-27, np.float32), "b": np.zeros(CHANNELS, np.float32)}
    step = Pointwise("p", "s", (Affine("m", "b"), Apply(Function.RELU)), Activation((count,), 0.0071, 12))
    return PassInput(
        source=words(),
        mask_image=words() if masked else None,
        probes=(aligned_copy(rng.integers(0, P, count, dtype=np.uint64)),),
        program=prepare_program(step, tensors, {}),
        operands={},
        probe_images=(aligned_copy(rng.integers(0, P, count, dtype=np.uint64)),),
        mask=words() if masked else None,
        kept=False,
    )


def in_pieces(given: PassInput, size: int) -> tuple[PassInput, np.ndarray]:
    """The same pass over a ring whose pieces are all there, and the memory that it reads."""
    batch, count = given.shape
    ring = Ring(aligned_empty((PLACES, size), np.uint8), np.array([2**30], np.uint32), np.zeros(1, np.uint32))
    ring.places.fill(1)
    span = min(count, size // (batch * 4) // TILE * TILE)
    return replace(given, source=StreamedClaim(Passage(ring, 0, batch, count, span, False), 5.0)), ring.places


class Copies:
    """A thread that copies from a GPU to memory of the host, which is pinned meanwhile. `rate`: bytes a second."""

    def __init__(self, target: np.ndarray) -> None:
        import torch

        self._torch = torch
        self._target = target.reshape(-1).view(np.uint8)
        self._source = torch.zeros(self._target.size, dtype=torch.uint8, device="cuda")
        self._stopped = threading.Event()
        self.rate = 0.0

    @contextmanager
    def going_on(self) -> Iterator[None]:
        """Copies while the block runs."""
        from slalom.device.pinned import register_host, unregister_host

        register_host(self._target)
        thread = threading.Thread(target=self._copy)
        thread.start()
        time.sleep(0.1)
        try:
            yield
        finally:
            self._stopped.set()
            thread.join()
            unregister_host(self._target)

    def _copy(self) -> None:
        stream, target = self._torch.cuda.Stream(), self._torch.from_numpy(self._target)
        repeats = max(1, 2**26 // self._target.size)
        copied, begin = 0, time.perf_counter()
        with self._torch.cuda.stream(stream):
            while not self._stopped.is_set():
                for _ in range(repeats):
                    target.copy_(self._source, non_blocking=True)
                stream.synchronize()
                copied += repeats * self._target.size
        self.rate = copied / (time.perf_counter() - begin)


def measure(given: PassInput, target: np.ndarray, words: argparse.Namespace, blinded: Any) -> str:
    """One line: alone, and beside copies to `target`."""
    dispatch = make_dispatch(None, words.threads)
    batch, count = given.shape
    moved = batch * count * 4 * (4 if given.mask is not None else 1)

    def timed() -> float:
        taken = []
        for _ in range(words.rounds + 1):
            begin = time.perf_counter()
            run_pass(dispatch, given, blinded_out=blinded)
            taken.append(time.perf_counter() - begin)
        return statistics.median(taken[1:])

    alone = timed()
    line = f"{alone / batch / count * 1e9:7.3f} ns an element {moved / alone / 1e9:6.1f} GB/s"
    if words.gpu:
        copies = Copies(target)
        with copies.going_on():
            beside = timed()
        line += f"   beside copies {moved / beside / 1e9:6.1f} GB/s, and they {copies.rate / 1e9:5.1f} GB/s"
    dispatch.close()
    return line


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--elements", type=int, default=56 * 56 * 256, help="of an item")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--gpu", action="store_true", help="copy from a GPU beside the pass")
    words = parser.parse_args()
    for masked in (False, True):
        whole = draw(words.batch_size, words.elements, masked)
        blinded = aligned_empty(whole.shape, np.int32) if masked else None
        for size in PLACE_SIZES:
            given, target = in_pieces(whole, size) if size else (whole, np.asarray(whole.source))
            name = "masked" if masked else "claims"
            print(f"{name} {size / 2**20:3.0f} MiB a place: {measure(given, target, words, blinded)}", flush=True)


if __name__ == "__main__":
    main()
