"""Functions, sums and products, and how they ride with the step before them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from slalom.plan.steps import Add, Linear, Multiply, Pointwise, Reshape, Softmax
from tests.importer.compiled import Function, compile_module

FUNCTIONS: dict[str, nn.Module] = {
    "relu": nn.ReLU(),
    "relu-in-place": nn.ReLU(inplace=True),
    "relu6": nn.ReLU6(),
    "hardtanh-0-6": nn.Hardtanh(0, 6),
    "hardtanh": nn.Hardtanh(-0.5, 1.5),
    "clamp": Function(lambda x: x.clamp(-1, 0.25)),
    "clamp-min": Function(lambda x: x.clamp(min=-0.5)),
    "clamp-max": Function(lambda x: x.clamp(max=0.5)),
    "leaky-relu": nn.LeakyReLU(0.1),
    "hardswish": nn.Hardswish(),
    "hardsigmoid": nn.Hardsigmoid(),
    "silu": nn.SiLU(),
    "gelu": nn.GELU(),
    "gelu-tanh": nn.GELU(approximate="tanh"),
    "sigmoid": nn.Sigmoid(),
    "tanh": nn.Tanh(),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_function_rides_with_the_map(name: str) -> None:
    compiled = compile_module(nn.Sequential(nn.Conv2d(3, 6, 3), FUNCTIONS[name]), (3, 6, 6))
    assert compiled.kinds() == ["Linear", "Pointwise"]
    assert compiled.decibels > 38


CONSTANT = torch.linspace(-1.5, 2, 3)

ARITHMETIC: dict[str, Callable[[Tensor], Tensor]] = {
    "add": lambda x: x + 1.5,
    "add-in-place": lambda x: torch.relu(x).add_(0.5),
    "reverse-subtract": lambda x: 1.5 - x,
    "subtract-alpha": lambda x: torch.sub(x, 1.5, alpha=2),
    "multiply": lambda x: 3 * x,
    "divide": lambda x: x / 0.7,
    "negate": lambda x: -x,
    "per-column": lambda x: x + torch.linspace(-1.5, 2, 5),
    "per-channel": lambda x: x * CONSTANT[:, None, None] - CONSTANT[None, :, None, None],
    "per-row": lambda x: x / (CONSTANT[0] + torch.linspace(3, 5, 4)[:, None]),
    "per-element": lambda x: x * torch.linspace(-1, 1, 60).reshape(1, 3, 4, 5),
    "normalise": lambda x: (x - CONSTANT[:, None, None]) / (CONSTANT[:, None, None] ** 2 + 1),
}


@pytest.mark.parametrize("name", ARITHMETIC)
def test_arithmetic_with_constants_is_one_affine(name: str) -> None:
    compiled = compile_module(Function(ARITHMETIC[name]), (3, 4, 5), activation_bits=15)
    assert compiled.kinds() == ["Pointwise"]
    assert len(compiled.steps(Pointwise)[0].operations) <= 3
    assert compiled.decibels > 60


PAIRS: dict[str, Callable[[Tensor], Tensor]] = {
    "add": lambda x: torch.relu(x) + x,
    "add-itself": lambda x: x + x,
    "subtract": lambda x: torch.relu(x) - x * 2,
    "subtract-reversed": lambda x: x - torch.relu(x),
    "subtract-both-fresh": lambda x: torch.relu(x) - torch.sigmoid(x),
    "alpha": lambda x: torch.add(x, torch.tanh(x), alpha=-0.3),
    "multiply": lambda x: x * torch.sigmoid(x),
    "broadcast-channel": lambda x: torch.sigmoid(x.mean((2, 3), keepdim=True)) * x,
    "broadcast-channel-right": lambda x: x * torch.sigmoid(x.mean((2, 3), keepdim=True)),
    "broadcast-pixel": lambda x: x * torch.sigmoid(x.mean(1, keepdim=True)),
    "broadcast-row": lambda x: x - x.mean(3, keepdim=True),
}


@pytest.mark.parametrize("name", PAIRS)
def test_arithmetic_of_two_values(name: str) -> None:
    compiled = compile_module(Function(PAIRS[name]), (3, 4, 5), activation_bits=15)
    assert compiled.decibels > 55


class Residual(nn.Module):
    """A block with a projected shortcut: both branches end in a linear map."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.shortcut = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 6, 1), nn.Conv2d(3, 6, 1)
        self.norm = nn.BatchNorm2d(6)

    def forward(self, values: Tensor) -> Tensor:
        hidden = self.norm(self.second(torch.relu(self.first(values))))
        return torch.relu(hidden + self.shortcut(values))


def test_residual_rides_with_its_branch() -> None:
    compiled = compile_module(Residual(), (3, 6, 6))
    assert compiled.kinds() == ["Linear", "Pointwise"] * 3
    last = compiled.steps(Pointwise)[-1]
    assert [type(operation).__name__ for operation in last.operations] == ["Affine", "Add", "Apply"]
    assert compiled.decibels > 38


class SqueezeExcite(nn.Module):
    """Depthwise, then channels weighed by what their means say."""

    def __init__(self) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(6, 6, 3, padding=1, groups=6)
        self.reduce, self.expand = nn.Conv2d(6, 2, 1), nn.Conv2d(2, 6, 1)

    def forward(self, values: Tensor) -> Tensor:
        hidden = functional.silu(self.depthwise(values))
        weights = functional.adaptive_avg_pool2d(hidden, 1)
        weights = torch.sigmoid(self.expand(functional.silu(self.reduce(weights))))
        return hidden * weights


def test_squeeze_and_excitation() -> None:
    compiled = compile_module(SqueezeExcite(), (6, 7, 5))
    multiplications = [
        operation
        for step in compiled.steps(Pointwise)
        for operation in step.operations
        if isinstance(operation, Multiply)
    ]
    assert len(multiplications) == 1
    assert compiled.plan.types[multiplications[0].operand].shape == (1, 1, 6)
    assert not compiled.steps(Reshape)
    assert compiled.decibels > 38


def test_a_value_read_twice_becomes_an_activation_once() -> None:
    layers = nn.Sequential(nn.Conv2d(3, 6, 3), Function(lambda x: torch.relu(x) + torch.sigmoid(x)))
    compiled = compile_module(layers, (3, 6, 6))
    adds = [
        operation for step in compiled.steps(Pointwise) for operation in step.operations if isinstance(operation, Add)
    ]
    assert len(adds) == 1
    assert len(compiled.steps(Pointwise)) == 3
    assert compiled.decibels > 38


@pytest.mark.parametrize("logarithm", [False, True])
def test_softmax(logarithm: bool) -> None:
    head = nn.LogSoftmax(dim=1) if logarithm else nn.Softmax(dim=-1)
    compiled = compile_module(nn.Sequential(nn.Linear(7, 5), head), (7,))
    (step,) = compiled.steps(Softmax)
    assert step.logarithm is logarithm
    assert compiled.decibels > 40


def test_softmax_over_channels_and_inside_the_network() -> None:
    compiled = compile_module(Function(lambda x: torch.softmax(x, 1) * x), (4, 3, 5), activation_bits=15)
    assert compiled.decibels > 50


def test_dropout_and_copies_disappear() -> None:
    layers = nn.Sequential(
        nn.Dropout(0.5),
        nn.Linear(7, 6),
        nn.Identity(),
        nn.Dropout(0.3),
        nn.ReLU(),
        Function(lambda x: x.clone().detach().contiguous().to(torch.float32)),
        nn.Linear(6, 5),
    )
    compiled = compile_module(layers.train(), (7,))
    assert compiled.kinds() == ["Linear", "Pointwise"] * 2
    assert len(compiled.steps(Linear)) == 2
    assert compiled.decibels > 38


def test_constants_are_computed_beforehand() -> None:
    layer = nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 6, 3))
    inputs_scale = Function(lambda x: x * torch.full((1, 3, 1, 1), 2.0).sqrt())
    compiled = compile_module(nn.Sequential(inputs_scale, layer), (3, 6, 6))
    assert len(compiled.steps(Linear)) == 1
    assert compiled.decibels > 38
