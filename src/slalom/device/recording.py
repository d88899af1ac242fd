"""Kernels recorded once and replayed with one call each: launching them one by one costs more than small ones take.

A recording belongs to one work on one batch size. Its tensors are its own and are used again by every replay, so events
say when a source has been read and a result taken away. Two recordings of a work take turns, so that the copies of one
overlap with the kernels of the other.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import cycle
from typing import Any

import torch
from torch import Tensor

from slalom.plan.footprint import TURNS

Results = tuple[Tensor, ...]
Work = Callable[[Tensor], Iterator[Results]]  # from a source, results some at a time; run anew for every recording

_BATCH_SIZES = 2


@dataclass(frozen=True, eq=False)
class Recording:
    """A source to fill, and graphs to replay in order, each with the results that are there once it ran."""

    source: Tensor
    segments: tuple[tuple[torch.cuda.CUDAGraph, Results], ...]
    read: torch.cuda.Event = field(default_factory=torch.cuda.Event)  # the source may be filled again
    taken: torch.cuda.Event = field(default_factory=torch.cuda.Event)  # the results may be made again


class Recordings:
    """The recordings of one plan on one stream, by batch size and key.

    `sizes`: how many batch sizes are kept; one more takes the place of the oldest.
    """

    def __init__(self, stream: torch.cuda.Stream) -> None:
        self._stream = stream
        self.sizes = _BATCH_SIZES
        self._batches: OrderedDict[int, dict[Any, Iterator[Recording]]] = OrderedDict()

    def of(self, key: tuple[Any, ...], source: tuple[tuple[int, ...], torch.dtype], work: Work) -> Recording:
        """The recording whose turn it is, for a source of this shape (batch first) and dtype; made if there is none."""
        batch = source[0][0]
        if batch not in self._batches:
            while len(self._batches) >= self.sizes:
                torch.cuda.synchronize(self._stream.device)  # nothing that is dropped is still at work
                self._batches.popitem(last=False)
            self._batches[batch] = {}
        self._batches.move_to_end(batch)
        known = self._batches[batch]
        if key not in known:
            known[key] = cycle([self._record(source, work) for _ in range(TURNS)])
        return next(known[key])

    def clear(self) -> None:
        """Drops all, once the GPU is idle."""
        torch.cuda.synchronize(self._stream.device)
        self._batches.clear()

    def _record(self, source: tuple[tuple[int, ...], torch.dtype], work: Work) -> Recording:
        with torch.cuda.stream(self._stream):
            given = torch.zeros(source[0], dtype=source[1], device=self._stream.device)
            # once unrecorded: kernels are compiled and loaded, which a recording may not do
            count = sum(1 for _ in work(given))
        pool = torch.cuda.graph_pool_handle()
        torch.cuda.synchronize(self._stream.device)
        torch.cuda.empty_cache()  # what the first run took is there for the recording, which has a pool of its own
        with torch.cuda.stream(self._stream):
            results = work(given)
            segments = [_capture(results, pool) for _ in range(count)]
        # LOAD-BEARING: every result is kept, so that no later segment was given its memory while it is copied away
        return Recording(given, tuple(segments))


def _capture(results: Iterator[Results], pool: Any) -> tuple[torch.cuda.CUDAGraph, Results]:
    graph = torch.cuda.CUDAGraph()
    graph.capture_begin(pool=pool, capture_error_mode="thread_local")
    try:
        made = next(results)
    finally:
        graph.capture_end()
    return graph, made
