"""One call of an aten operator, its arguments bound by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from slalom.errors import ModelError
from slalom.importer.builder import Builder, Handle
from slalom.importer.export import BATCH_SIZE
from slalom.importer.graph import Floats, Weights
from slalom.plan.steps import Shape

Result = Handle | tuple[Handle, ...]


@dataclass(frozen=True)
class Call:
    """Arguments by schema name: handles for values, tensors and numbers for constants. `shape` is the result's item."""

    builder: Builder
    arguments: dict[str, Any]
    shape: Shape

    def __getitem__(self, name: str) -> Any:
        return self.arguments[name]

    def handle(self, name: str) -> Handle:
        """The argument as a value. Raises ModelError for a constant."""
        value = self.arguments[name]
        if not isinstance(value, Handle):
            raise ModelError(f"argument {name!r} must depend on the network's input, not be a constant")
        return value

    def constant(self, name: str) -> Floats:
        """The argument as a float64 array. Raises ModelError for a value computed from the input, or not finite."""
        return as_constant(self.arguments[name], name)

    def weight(self, name: str, axes: tuple[int, ...]) -> Weights:
        """The argument as a float32 array of so many axes, permuted. Raises ModelError as `constant`."""
        tensor = self.arguments[name]
        if not isinstance(tensor, Tensor) or tensor.ndim != len(axes):
            raise ModelError(f"argument {name!r} must be a constant of {len(axes)} axes")
        if not bool(torch.isfinite(tensor).all()):
            raise ModelError(f"argument {name!r} holds a number that is not finite")
        return np.ascontiguousarray(tensor.detach().to(torch.float32).cpu().permute(axes).numpy())

    def optional_constant(self, name: str, default: Floats) -> Floats:
        """The argument as an array, `default` where it is None."""
        return default if self.arguments.get(name) is None else self.constant(name)

    def pair(self, name: str) -> tuple[int, int]:
        """One or two integers as two; an empty list is refused."""
        value = self.arguments[name]
        numbers = [value] if isinstance(value, int) else list(value)
        if len(numbers) not in (1, 2):
            raise ModelError(f"argument {name!r} must be one or two integers")
        return int(numbers[0]), int(numbers[-1])

    def axis(self, name: str, handle: Handle) -> int:
        """The item axis that a torch dimension names. Raises ModelError for the batch."""
        return item_axis(self.arguments[name], len(handle.shape))


Lowering = Callable[[Call], Result]


def as_constant(value: Any, name: str) -> Floats:
    """A number or tensor as float64. Raises ModelError for a value computed from the input, or not finite."""
    if isinstance(value, Handle) or not isinstance(value, Tensor | int | float):
        raise ModelError(f"argument {name!r} must be a constant, not computed from the network's input")
    array = value.detach().to(torch.float64).cpu().numpy() if isinstance(value, Tensor) else np.float64(value)
    if not np.isfinite(array).all():
        raise ModelError(f"argument {name!r} holds a number that is not finite")
    return np.asarray(array, np.float64)


def item_constant(array: Floats, rank: int) -> Floats:
    """A constant that broadcasts against a batch of items of this rank, without its batch axis."""
    if array.ndim <= rank:
        return array
    if array.ndim > rank + 1 or array.shape[0] not in (1, BATCH_SIZE) or not (array == array[:1]).all():
        raise ModelError(f"a constant of shape {array.shape} differs between the items of a batch")
    first: Floats = array[0]
    return first


def item_axis(dimension: int, rank: int) -> int:
    """The item axis of a torch dimension. Raises ModelError for the batch."""
    axis = dimension % (rank + 1) - 1
    if axis < 0:
        raise ModelError("it acts along the batch, but the first axis must stay the batch")
    return axis


def item_axes(dimensions: int | Sequence[int] | None, rank: int) -> tuple[int, ...]:
    """Item axes of several torch dimensions, in order. Raises ModelError for the batch, or for all dimensions."""
    if dimensions is None or (not isinstance(dimensions, int) and len(dimensions) == 0):
        raise ModelError("it acts along every axis, but the first axis must stay the batch")
    numbers = [dimensions] if isinstance(dimensions, int) else list(dimensions)
    return tuple(sorted({item_axis(number, rank) for number in numbers}))
