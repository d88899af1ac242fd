"""Linear operators, what folds into them, and chains."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from slalom.plan.steps import Accumulator, Activation, Concatenate, Linear, Pad, Permute, Pointwise, Reshape
from tests.importer.compiled import Compiled, Function, compile_module

CONVOLUTIONS = {
    "3x3": nn.Conv2d(3, 8, 3),
    "no-bias": nn.Conv2d(3, 8, 3, bias=False),
    "padding": nn.Conv2d(3, 8, (3, 5), padding=(2, 1)),
    "same-even": nn.Conv2d(3, 8, (2, 4), padding="same"),
    "same-dilated": nn.Conv2d(3, 8, 3, padding="same", dilation=(2, 3)),
    "valid": nn.Conv2d(3, 8, 3, padding="valid", stride=2),
    "stride": nn.Conv2d(3, 8, 3, stride=(2, 3), padding=1),
    "dilation": nn.Conv2d(3, 8, 3, dilation=(1, 2)),
    "groups": nn.Conv2d(3, 12, 3, groups=3),
    "depthwise": nn.Conv2d(3, 3, 3, groups=3, padding=1),
    "1x1": nn.Conv2d(3, 8, 1),
}


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_convolution(name: str) -> None:
    compiled = compile_module(CONVOLUTIONS[name], (3, 9, 11))
    assert compiled.kinds() == ["Linear", "Pointwise"]
    assert compiled.decibels > 40


def test_convolution_of_a_sequence() -> None:
    layers = nn.Sequential(nn.Conv1d(3, 6, 5, stride=2, padding=2, dilation=2), nn.ReLU(), nn.Conv1d(6, 4, 3))
    compiled = compile_module(layers, (3, 30))
    assert len(compiled.steps(Linear)) == 2
    first = compiled.steps(Pointwise)[0]  # the relu rides with its convolution, in spite of the reshape between
    assert [type(operation).__name__ for operation in first.operations] == ["Affine", "Apply"]
    assert compiled.decibels > 35


@pytest.mark.parametrize("shape", [(7,), (5, 7), (2, 5, 7)])
def test_dense_acts_on_the_last_axis(shape: tuple[int, ...]) -> None:
    compiled = compile_module(nn.Linear(7, 6), shape)
    assert len(compiled.steps(Linear)) == 1
    assert compiled.decibels > 40


def test_products_with_constant_matrices() -> None:
    class Products(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            generator = torch.Generator().manual_seed(3)
            self.register_buffer("first", torch.randn(7, 6, generator=generator))
            self.register_buffer("second", torch.randn(6, 5, generator=generator))
            self.register_buffer("bias", torch.randn(5, generator=generator))

        def forward(self, values: torch.Tensor) -> torch.Tensor:
            hidden = torch.relu(values @ self.first)
            return torch.addmm(self.bias, hidden, self.second, beta=2.0, alpha=0.5) + torch.mm(hidden, self.second)

    compiled = compile_module(Products(), (7,))
    assert len(compiled.steps(Linear)) == 3
    assert compiled.decibels > 35


def test_batch_norm_folds_into_the_map_before_it() -> None:
    layers = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(72, 6), nn.BatchNorm1d(6)
    )
    compiled = compile_module(layers, (3, 5, 5))
    assert [len(step.operations) for step in compiled.steps(Pointwise)] == [2, 1]
    assert compiled.decibels > 40


def test_batch_norm_with_nothing_to_fold_into() -> None:
    layers = nn.Sequential(nn.BatchNorm2d(3), nn.ReLU(), nn.Conv2d(3, 8, 3, padding=1))
    compiled = compile_module(layers, (3, 5, 5))
    assert compiled.kinds() == ["Pointwise", "Linear", "Pointwise"]
    assert compiled.decibels > 40


def test_batch_norm_does_not_fold_into_a_map_that_something_else_reads() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)

        def forward(self, values: torch.Tensor) -> torch.Tensor:
            hidden = self.conv(values)
            return self.norm(hidden) * hidden

    compiled = compile_module(Twice(), (3, 5, 5))
    assert compiled.decibels > 35


@pytest.mark.parametrize("pad", [nn.ZeroPad2d((0, 1, 2, 3)), Function(lambda x: functional.pad(x, (2, 0, 0, 1)))])
def test_asymmetric_padding_folds_into_the_convolution(pad: nn.Module) -> None:
    compiled = compile_module(nn.Sequential(pad, nn.Conv2d(3, 8, 3, stride=2, padding=1)), (3, 8, 8))
    assert compiled.kinds() == ["Linear", "Pointwise"]
    assert compiled.decibels > 40


def test_padding_that_something_else_reads_stays() -> None:
    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 3, padding=1)

        def forward(self, values: torch.Tensor) -> torch.Tensor:
            padded = functional.pad(values, (1, 0, 0, 2))
            return self.conv(padded) + padded

    compiled = compile_module(Both(), (3, 8, 8))
    assert len(compiled.steps(Pad)) == 1
    assert compiled.decibels > 40


def test_padding_of_channels_stays() -> None:
    compiled = compile_module(Function(lambda x: functional.pad(x, (0, 0, 0, 0, 1, 2)) * 2), (3, 4, 4))
    assert len(compiled.steps(Pad)) == 1
    assert compiled.decibels > 50


def _separable(**depthwise: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(6, 6, 3, padding=1, groups=6, **depthwise), nn.Conv2d(6, 8, 1), nn.ReLU6())


def test_maps_that_follow_one_another_are_one_step() -> None:
    compiled = compile_module(_separable(), (6, 8, 8))
    assert compiled.kinds() == ["Linear", "Pointwise"]
    (step,) = compiled.steps(Linear)
    assert [linear_map.weight for linear_map in step.maps] == ["0.weight", "1.weight"]
    assert compiled.decibels > 35


def test_three_maps_and_groups_are_one_step() -> None:
    layers = nn.Sequential(nn.Conv2d(4, 4, 1), nn.Conv2d(4, 8, 1, groups=2), nn.Conv2d(8, 8, 1, groups=4))
    compiled = compile_module(layers, (4, 6, 6), activation_bits=8, minimum_chain_bits=6)
    assert len(compiled.steps(Linear)) == 1
    assert compiled.decibels > 30


def test_a_bias_before_a_padded_map_keeps_them_apart() -> None:
    def layers(bias: bool) -> nn.Sequential:
        return nn.Sequential(nn.Conv2d(3, 4, 1, bias=bias), nn.Conv2d(4, 8, 3, padding=1))

    apart, together = compile_module(layers(True), (3, 6, 6)), compile_module(layers(False), (3, 6, 6))
    assert (len(apart.steps(Linear)), len(together.steps(Linear))) == (2, 1)
    assert min(apart.decibels, together.decibels) > 35


def test_a_chain_that_leaves_too_few_bits_stays_apart() -> None:
    layers = nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 64))
    assert len(compile_module(layers, (64,), minimum_chain_bits=12).steps(Linear)) == 2
    chained = compile_module(layers, (64,), minimum_chain_bits=4)
    assert len(chained.steps(Linear)) == 1
    entry = chained.plan.graph.input.output
    assert chained.steps(Linear)[0].output.bound <= 2**31 - 1
    assert entry.bits < 12  # the proof of the chain is what limits the input


def test_a_middle_value_that_something_else_reads_stays() -> None:
    class Residual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.project, self.expand = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1)

        def forward(self, values: torch.Tensor) -> torch.Tensor:
            middle = self.project(values)
            return self.expand(middle) + middle

    compiled = compile_module(Residual(), (3, 6, 6))
    assert len(compiled.steps(Linear)) == 2
    assert compiled.decibels > 35


def test_one_layer_applied_twice_in_a_row() -> None:
    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(5, 5)

        def forward(self, values: torch.Tensor) -> torch.Tensor:
            return self.layer(torch.relu(self.layer(self.layer(values))))

    compiled = compile_module(Recurrent(), (5,))
    assert compiled.decibels > 30
    assert sum(len(step.maps) for step in compiled.steps(Linear)) == 3


def test_one_layer_with_two_batch_norms_is_two_layers() -> None:
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.first, self.second = nn.Conv2d(3, 3, 3), nn.BatchNorm2d(3), nn.BatchNorm2d(3)

        def forward(self, values: torch.Tensor) -> torch.Tensor:
            return self.second(self.conv(torch.relu(self.first(self.conv(values)))))

    compiled = compile_module(Shared(), (3, 8, 8))
    assert [step.name for step in compiled.steps(Linear)] == ["conv", "conv.2"]
    assert compiled.decibels > 35


@pytest.mark.parametrize("size", [1, 3])
def test_flattening_before_a_dense_layer_moves_nothing(size: int) -> None:
    layers = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(8 * size * size, 5))
    compiled = compile_module(layers, (3, size, size))
    assert not compiled.steps(Permute)
    assert len(compiled.steps(Reshape)) == 1
    assert compiled.decibels > 35


def test_dense_over_channels_last_and_back() -> None:
    class ChannelsLast(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.dense = nn.Conv2d(3, 6, 3), nn.Linear(6, 4)

        def forward(self, values: torch.Tensor) -> torch.Tensor:
            hidden = torch.relu(self.conv(values)).permute(0, 2, 3, 1)
            return functional.gelu(self.dense(hidden)).permute(0, 3, 1, 2)

    compiled = compile_module(ChannelsLast(), (3, 6, 7))
    assert compiled.kinds() == ["Linear", "Pointwise"] * 2  # the plan stores channels last: nothing to permute
    assert compiled.decibels > 35


def _bits(compiled: Compiled) -> int:
    return min(kind.bits for kind in compiled.plan.types.values() if isinstance(kind, Activation))


def test_a_wide_layer_gets_fewer_bits() -> None:
    compiled = compile_module(nn.Linear(20_000, 3), (20_000,), activation_bits=15)
    accumulator = compiled.plan.types["linear"]
    assert isinstance(accumulator, Accumulator)
    assert 2**30 - 2**17 <= accumulator.bound <= 2**31 - 1  # one more bit would not fit
    assert _bits(compiled) < 15
    assert _bits(compile_module(nn.Linear(40, 3), (40,), activation_bits=15)) == 15


def test_every_reader_of_a_value_limits_it() -> None:
    class Readers(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.narrow, self.wide = nn.Linear(8, 3), nn.Linear(20_000, 3)

        def forward(self, values: torch.Tensor) -> torch.Tensor:
            return self.wide(values) + self.narrow(values[:, :8])

    compiled = compile_module(Readers(), (20_000,), activation_bits=15)
    assert _bits(compiled) < 15
    assert not compiled.steps(Concatenate)
    assert compiled.decibels > 35
