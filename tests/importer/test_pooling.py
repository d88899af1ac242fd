"""Pools and reductions: every window and every divisor."""

from __future__ import annotations

import pytest
from torch import nn

from slalom.plan.steps import Permute, Pool, Reduction
from tests.importer.compiled import Function, compile_module

MAXIMA = {
    "plain": nn.MaxPool2d(2),
    "overlap": nn.MaxPool2d(3, stride=2),
    "padding": nn.MaxPool2d((3, 2), stride=(2, 1), padding=1),
    "ceiling": nn.MaxPool2d(3, stride=2, ceil_mode=True),
    "dilation": nn.MaxPool2d(3, stride=1, dilation=2, padding=1),
    "everything": nn.MaxPool2d(3, stride=2, padding=1, dilation=2, ceil_mode=True),
    "adaptive": nn.AdaptiveMaxPool2d((3, 4)),
    "axes": Function(lambda x: x.amax((2, 3))),
}

MEANS = {
    "plain": nn.AvgPool2d(2),
    "padding": nn.AvgPool2d(3, stride=2, padding=1),
    "padding-uncounted": nn.AvgPool2d(3, stride=2, padding=1, count_include_pad=False),
    "ceiling": nn.AvgPool2d(3, stride=2, ceil_mode=True),
    "ceiling-padding": nn.AvgPool2d(3, stride=2, padding=1, ceil_mode=True),
    "ceiling-uncounted": nn.AvgPool2d((2, 3), stride=(2, 2), padding=1, ceil_mode=True, count_include_pad=False),
    "divisor": nn.AvgPool2d(3, divisor_override=5),
    "adaptive": nn.AdaptiveAvgPool2d((3, 4)),
    "adaptive-one": nn.AdaptiveAvgPool2d(1),
    "adaptive-none": nn.AdaptiveAvgPool2d((None, 2)),
    "mean": Function(lambda x: x.mean((2, 3))),
    "mean-keeping": Function(lambda x: x.mean((-1, -2), keepdim=True)),
    "mean-rows": Function(lambda x: x.mean(2)),
    "mean-channels": Function(lambda x: x.mean(1, keepdim=True)),
    "mean-everything": Function(lambda x: x.mean((1, 2, 3), keepdim=True)),
    "sum": Function(lambda x: x.sum((1, 3))),
}


@pytest.mark.parametrize("name", MAXIMA)
def test_maximum(name: str) -> None:
    compiled = compile_module(nn.Sequential(MAXIMA[name]), (3, 9, 7), activation_bits=15)
    (pool,) = compiled.steps(Pool)
    assert pool.reduction is Reduction.MAXIMUM
    assert compiled.decibels > 65


@pytest.mark.parametrize("name", MEANS)
def test_mean(name: str) -> None:
    compiled = compile_module(nn.Sequential(MEANS[name]), (3, 9, 7), activation_bits=15)
    (pool,) = compiled.steps(Pool)
    assert pool.reduction is Reduction.SUM
    assert compiled.decibels > 60


def test_mean_of_a_sequence() -> None:
    layers = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), Function(lambda x: x.mean(1)), nn.Linear(8, 3))
    compiled = compile_module(layers, (5, 6))
    assert not compiled.steps(Permute)
    assert compiled.decibels > 38


def test_a_sum_over_more_than_the_accumulator_holds_gets_fewer_bits() -> None:
    compiled = compile_module(Function(lambda x: x.mean((2, 3))), (1, 512, 512), activation_bits=15)
    assert compiled.plan.graph.input.output.bits == 14  # 2^18 * (2^13 - 1) < 2^31 <= 2^18 * (2^14 - 1)
    assert compiled.decibels > 10
