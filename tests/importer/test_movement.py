"""Reshapes, permutations, slices and concatenations give what torch gives, whatever the plan's axis order."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from slalom.plan.steps import Activation, Concatenate, Layout, Linear, Permute
from tests.importer.compiled import Function, compile_module

MOVES: dict[str, Callable[[Tensor], Tensor]] = {
    "flatten": lambda x: x.flatten(1),
    "flatten-image": lambda x: x.flatten(2),
    "view": lambda x: x.view(x.shape[0], 6, -1),
    "view-image": lambda x: x.view(x.shape[0], 2, 6, 5),
    "reshape-permuted": lambda x: x.permute(0, 2, 3, 1).reshape(x.shape[0], 20, 3),
    "permute": lambda x: x.permute(0, 3, 1, 2),
    "transpose": lambda x: x.transpose(1, 3),
    "tokens": lambda x: x.flatten(2).transpose(1, 2),
    "tokens-and-back": lambda x: x.flatten(2).transpose(1, 2).transpose(2, 1).reshape(x.shape),
    "unsqueeze": lambda x: x.unsqueeze(2),
    "squeeze": lambda x: x[:, :, :1].squeeze(2),
    "squeeze-all": lambda x: x[:, :1].squeeze(),
    "slice": lambda x: x[:, 1:, ::2, -3:],
    "select": lambda x: x[:, :, 1],
    "select-last": lambda x: x.select(3, -1),
    "narrow": lambda x: x.narrow(2, 1, 2),
    "split": lambda x: torch.relu(x.split(2, 2)[1]),
    "split-sizes": lambda x: x.split([1, 4], 3)[1] + 1,
    "chunk": lambda x: torch.cat(x.chunk(2, 3)[::-1], 3),
    "unbind": lambda x: x.unbind(1)[2],
    "shuffle": lambda x: x.view(-1, 3, 2, 2, 5).transpose(2, 3).flatten(2, 3),
    "scalar": lambda x: x.mean((1, 2, 3)),
    "new-axis": lambda x: x[..., None] * 2,
    "cat-rows": lambda x: torch.cat([x, torch.relu(x)], 2),
    "cat-channels": lambda x: torch.cat([x * 3, x, -x], 1),
    "cat-permuted": lambda x: torch.cat([x.transpose(2, 3), x.reshape(-1, 3, 5, 4)], 1),
}


@pytest.mark.parametrize("name", MOVES)
def test_move(name: str) -> None:
    compiled = compile_module(Function(MOVES[name]), (3, 4, 5), activation_bits=15)
    assert compiled.decibels > 60


def test_layouts_follow_the_ranks() -> None:
    compiled = compile_module(Function(lambda x: (x * 2, x.flatten(1), x.flatten(2))), (3, 4, 5))
    assert compiled.plan.graph.input.layout is Layout.CHANNELS_FIRST
    assert compiled.plan.graph.input.output.shape == (4, 5, 3)
    layouts = [output.layout for output in compiled.plan.graph.outputs]
    assert layouts == [Layout.CHANNELS_FIRST, Layout.PLAIN, Layout.PLAIN]
    assert compile_module(nn.Linear(5, 2), (5,)).plan.graph.input.layout is Layout.PLAIN


def test_permutations_that_cancel_leave_nothing() -> None:
    compiled = compile_module(Function(lambda x: torch.relu(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)), (3, 4, 5))
    assert compiled.kinds() == ["Pointwise"]


def test_flatten_of_one_pixel_permutes_nothing() -> None:
    layers = nn.Sequential(nn.Conv2d(3, 6, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    compiled = compile_module(layers, (3, 5, 5))
    assert not compiled.steps(Permute)
    assert compiled.decibels > 40


class Branches(nn.Module):
    """Four branches joined over channels, one of them a maximum of the input itself."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.narrow, self.wide = nn.Conv2d(4, 5, 1), nn.Conv2d(4, 6, 3, padding=1)
        self.pooled, self.tail = nn.Conv2d(4, 3, 1), nn.Conv2d(18, 4, 1)
        self.mean, self.maximum = nn.AvgPool2d(3, 1, 1), nn.MaxPool2d(3, 1, 1)

    def forward(self, values: Tensor) -> Tensor:
        stem = torch.relu(self.stem(values))
        branches = [torch.relu(self.narrow(stem)), torch.relu(self.wide(stem)) * 4]
        branches += [torch.relu(self.pooled(self.mean(stem))), self.maximum(stem)]
        return self.tail(torch.cat(branches, 1))


def test_branches_share_one_scale() -> None:
    compiled = compile_module(Branches(), (3, 7, 7))
    (step,) = compiled.steps(Concatenate)
    kinds = [compiled.plan.types[source] for source in step.sources]
    assert all(isinstance(kind, Activation) for kind in kinds)
    assert len({(kind.scale, kind.bits) for kind in [*kinds, step.output]}) == 1
    assert len(compiled.steps(Linear)) == 5
    assert compiled.decibels > 35


def test_several_outputs_one_of_them_read_again() -> None:
    class Heads(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.trunk, self.first, self.second = nn.Linear(6, 8), nn.Linear(8, 3), nn.Linear(8, 2)

        def forward(self, values: Tensor) -> tuple[Tensor, ...]:
            hidden = torch.relu(self.trunk(values))
            return self.first(hidden), hidden, self.second(hidden), values

    compiled = compile_module(Heads(), (6,))
    assert len(compiled.plan.graph.outputs) == 4
    assert compiled.decibels > 38
