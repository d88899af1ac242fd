"""Compiles a small module and compares what the plan computes, by the reference, with the float module.

Integers stand for real numbers, so this is a bound on quality, not equality: a wrong layout, window or constant leaves
a few decibels, the rounding of int8 weights about 45, that of 12-bit activations about 60.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from reference.network import run
from slalom.importer import CompileOptions, compile
from slalom.plan import Plan
from slalom.plan.steps import Step


class Function(nn.Module):
    """A module that applies a function of tensors."""

    def __init__(self, function: Callable[..., Tensor | tuple[Tensor, ...]]) -> None:
        super().__init__()
        self.function = function

    def forward(self, values: Tensor) -> Tensor | tuple[Tensor, ...]:
        return self.function(values)


@dataclass(frozen=True)
class Compiled:
    """A plan and how well it follows the float module, in decibels: the worst of its outputs."""

    plan: Plan
    decibels: float

    def steps(self, kind: type[Step]) -> list[Step]:
        return [step for step in self.plan.graph.steps if isinstance(step, kind)]

    def kinds(self) -> list[str]:
        return [type(step).__name__ for step in self.plan.graph.steps]


def draw_inputs(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def compile_module(module: nn.Module, item_shape: tuple[int, ...], **options: int) -> Compiled:
    """The module, randomised, compiled for items of this shape and calibrated on what it is then run on."""
    randomise(module)
    inputs = draw_inputs(5, *item_shape)
    plan = compile(module, (inputs,), [inputs], options=CompileOptions(**options))
    return Compiled(plan, signal_to_noise(plan, module, inputs))


def signal_to_noise(plan: Plan, module: nn.Module, inputs: Tensor) -> float:
    with torch.no_grad():
        wanted = module(inputs)
    wanted = wanted if isinstance(wanted, tuple) else (wanted,)
    found = run(plan.graph, plan.tensors, inputs.numpy())
    assert [item.shape for item in found] == [tuple(item.shape) for item in wanted]
    return min(decibels(item.numpy(), other) for item, other in zip(wanted, found, strict=True))


def decibels(wanted: np.ndarray, found: np.ndarray) -> float:
    signal, noise = float(np.square(wanted).sum()), float(np.square(wanted - found).sum())
    return 10 * float(np.log10(signal / max(noise, signal * 1e-15)))


def randomise(module: nn.Module, seed: int = 0) -> None:
    """Weights, biases and batch-norm statistics that make every term count."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for layer in module.modules():
            if isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Linear):
                layer.weight.normal_(0, layer.weight[0].numel() ** -0.5, generator=generator)
                if layer.bias is not None:
                    layer.bias.uniform_(-0.5, 0.5, generator=generator)
            elif isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
                layer.weight.uniform_(0.5, 1.5, generator=generator)
                layer.bias.uniform_(-0.5, 0.5, generator=generator)
                layer.running_mean.uniform_(-0.5, 0.5, generator=generator)
                layer.running_var.uniform_(0.5, 1.5, generator=generator)
    module.eval()
