"""Every network of the zoo compiles at a small size and follows its float self as far as int8 weights allow."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from slalom.importer import compile
from slalom.plan.steps import Linear
from slalom.zoo.efficientnet import efficientnet_lite0
from slalom.zoo.inception import inception_v3
from slalom.zoo.mobilenet import mobilenet, mobilenet_sep
from slalom.zoo.resnet import resnet_18, resnet_50
from slalom.zoo.vgg import vgg_16
from tests.importer.compiled import draw_inputs, signal_to_noise


def rounded_module_noise(module: nn.Module, inputs: torch.Tensor) -> float:
    """Decibels of the module itself once its weights are rounded to 8 bits a channel: no plan does much better."""
    with torch.no_grad():
        wanted = module(inputs)
        saved = {name: parameter.clone() for name, parameter in module.named_parameters()}
        for layer in module.modules():
            if isinstance(layer, nn.Conv2d | nn.Linear):
                scale = layer.weight.flatten(1).abs().amax(1).reshape(-1, *[1] * (layer.weight.ndim - 1)) / 127
                layer.weight.copy_((layer.weight / scale).round() * scale)
        found = module(inputs)
        for name, parameter in module.named_parameters():
            parameter.copy_(saved[name])
    return float(10 * torch.log10(wanted.square().sum() / (wanted - found).square().sum()))


def check(module: nn.Module, size: int, linear_steps: int) -> None:
    inputs = draw_inputs(4, 3, size, size)
    plan = compile(module, (inputs,), [inputs])
    assert sum(isinstance(step, Linear) for step in plan.graph.steps) == linear_steps
    possible = rounded_module_noise(module, inputs[:1])
    assert signal_to_noise(plan, module, inputs[:1]) > min(possible, 40) - 8


def test_mobilenet() -> None:
    check(mobilenet(classes=10, image_size=32), 32, 28)


def test_mobilenet_sep_chains_all_but_two_blocks() -> None:
    check(mobilenet_sep(classes=10, image_size=32), 32, 17)


def test_efficientnet_lite0() -> None:
    check(efficientnet_lite0(classes=10, image_size=32), 32, 49)


def test_vgg_16() -> None:
    check(vgg_16(classes=10, image_size=32, hidden_width=64), 32, 16)


def test_resnet_18() -> None:
    check(resnet_18(classes=10, image_size=32), 32, 21)


@pytest.mark.slow
def test_resnet_50() -> None:
    check(resnet_50(classes=10, image_size=32), 32, 54)


@pytest.mark.slow
def test_inception_v3() -> None:
    check(inception_v3(classes=10, image_size=75), 75, 95)
