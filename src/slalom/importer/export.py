"""A torch module as a functional graph of aten operators, in inference mode, with a fixed batch."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.fx import GraphModule

from slalom.errors import ModelError

# More than one, so that torch does not specialise on a batch of one and a literal batch of one cannot pass unseen.
BATCH_SIZE = 4


@dataclass(frozen=True)
class Exported:
    """The graph (`program`, no operator of which writes in place) and the shape of an item of its single input."""

    program: GraphModule
    item_shape: tuple[int, ...]


def export_module(module: nn.Module, example_inputs: Sequence[Tensor]) -> Exported:
    """The module's graph for a batch of `BATCH_SIZE` items like the example's. The module is left in eval mode.

    `example_inputs` holds one float tensor [N, ...], N >= 1. Raises ModelError where the network has another number of
    inputs, cannot be exported, or changes its own buffers in inference.
    """
    example = _check_example(example_inputs)
    _check_tensors(module)
    module.eval()
    inputs = example[:1].to(torch.float32).repeat(BATCH_SIZE, *[1] * (example.ndim - 1))
    try:
        with torch.no_grad(), warnings.catch_warnings():
            # Torch warns of its own use of its own deprecated class; the caller can do nothing about it.
            warnings.filterwarnings("ignore", message=".*LeafSpec.*", category=FutureWarning)
            program = torch.export.export(module, (inputs,)).run_decompositions({})
            mutated = sorted(program.graph_signature.buffers_to_mutate.values())
            graph_module = program.module(check_guards=False)
    except (RuntimeError, ValueError, TypeError, AttributeError, AssertionError, LookupError) as error:
        raise ModelError(
            f"torch.export cannot read the network: {_first_line(error)}",
            hint="control flow must not depend on the data, and the first axis must be the batch",
        ) from error
    if mutated:
        raise ModelError(f"the network changes its buffer {mutated[0]!r} in inference")
    return Exported(graph_module, tuple(example.shape[1:]))


def _check_example(example_inputs: Sequence[Tensor]) -> Tensor:
    if len(example_inputs) != 1 or not isinstance(example_inputs[0], Tensor):
        raise ModelError(f"a network takes a single tensor, this one {len(example_inputs)} inputs")
    example = example_inputs[0]
    if example.ndim < 2 or min(example.shape) < 1 or not example.is_floating_point():
        raise ModelError(f"the input must be a float tensor (batch, ...), not {example.dtype} {tuple(example.shape)}")
    return example


def _check_tensors(module: nn.Module) -> None:
    """Calibration runs on the CPU, in single precision."""
    for name, tensor in (*module.named_parameters(), *module.named_buffers()):
        if tensor.device.type != "cpu":
            raise ModelError(f"parameter {name!r} is on {tensor.device}", hint="compile module.cpu()")
        if tensor.is_floating_point() and tensor.dtype != torch.float32:
            raise ModelError(f"parameter {name!r} is {tensor.dtype}, not float32", hint="compile module.float()")


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:300] if lines else type(error).__name__
