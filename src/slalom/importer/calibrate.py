"""The range of every value over the calibration inputs. Offline, and never from a secret input.

The range is the absolute maximum: nothing that calibration showed is clipped.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.fx import Interpreter, Node

from slalom.errors import ModelError
from slalom.importer.export import BATCH_SIZE, Exported


def observe_ranges(exported: Exported, calibration: Iterable[Tensor]) -> dict[str, float]:
    """The largest magnitude of every float value, by node name, over batches [N, ...] of any N.

    Raises ModelError for no batch at all, a wrong shape, or numbers that are not finite.
    """
    observer = _Observer(exported)
    with torch.no_grad():
        for batch in _in_batches(exported, calibration):
            observer.run(batch)
    if not observer.ranges:
        raise ModelError("calibration needs at least one input")
    return observer.ranges


class _Observer(Interpreter):
    """Runs the graph in float32 and keeps the largest magnitude of every value."""

    def __init__(self, exported: Exported) -> None:
        super().__init__(exported.program)
        self.ranges: dict[str, float] = {}

    def run_node(self, n: Node) -> Any:
        result = super().run_node(n)
        value = result[0] if isinstance(result, tuple | list) and result else result
        if n.op in ("placeholder", "call_function") and isinstance(value, Tensor) and value.is_floating_point():
            self._record(n, value)
        return result

    def _record(self, node: Node, value: Tensor) -> None:
        low, high = torch.aminmax(value) if value.numel() else (value.new_zeros(()), value.new_zeros(()))
        largest = max(-float(low), float(high))  # aminmax gives NaN where there is one
        if not math.isfinite(largest):
            raise ModelError(f"calibration gave a number that is not finite at node {node.name!r}")
        self.ranges[node.name] = max(largest, self.ranges.get(node.name, 0.0))


def _in_batches(exported: Exported, calibration: Iterable[Tensor]) -> Iterator[Tensor]:
    """The calibration inputs in batches of the exported size; the last is filled by repeating its first item."""
    waiting: list[Tensor] = []
    for index, batch in enumerate(calibration):
        waiting.extend(_check_batch(batch, index, exported.item_shape))
        while len(waiting) >= BATCH_SIZE:
            yield torch.stack(waiting[:BATCH_SIZE])
            del waiting[:BATCH_SIZE]
    if waiting:
        yield torch.stack(waiting + [waiting[0]] * (BATCH_SIZE - len(waiting)))


def _check_batch(batch: Tensor, index: int, item_shape: tuple[int, ...]) -> Tensor:
    if not isinstance(batch, Tensor) or tuple(batch.shape[1:]) != item_shape or batch.ndim < 1:
        shape = tuple(batch.shape) if isinstance(batch, Tensor) else type(batch).__name__
        raise ModelError(f"calibration batch {index} has shape {shape}, expected (batch, {str(item_shape)[1:]}")
    if not bool(torch.isfinite(batch).all()):
        raise ModelError(f"calibration batch {index} holds a number that is not finite")
    return batch.detach().to(torch.float32).cpu()
