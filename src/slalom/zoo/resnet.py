"""ResNet (He et al. 2016, arXiv:1512.03385), with the stride on the 3x3 convolution of a bottleneck ("v1.5")."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from slalom.zoo.initialise import initialise

_WIDTHS = (64, 128, 256, 512)
_BOTTLENECK_EXPANSION = 4


class BlockShape(NamedTuple):
    """What a residual block takes (`channels`), its inner `width`, and the `stride` of its first 3x3 convolution."""

    channels: int
    width: int
    stride: int


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and the shortcut, which is projected where the shape changes."""

    expansion = 1

    def __init__(self, shape: BlockShape) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(shape.channels, shape.width, 3, stride=shape.stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(shape.width)
        self.conv2 = nn.Conv2d(shape.width, shape.width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(shape.width)
        self.downsample = _shortcut(shape, shape.width)

    def forward(self, images: Tensor) -> Tensor:
        """relu(branch + shortcut): [N, channels, H, W] -> [N, width, H / stride, W / stride]."""
        branch = functional.relu(self.bn1(self.conv1(images)))
        branch = self.bn2(self.conv2(branch))
        shortcut = images if self.downsample is None else self.downsample(images)
        return functional.relu(branch + shortcut)


class Bottleneck(nn.Module):
    """1x1 down, 3x3, 1x1 up to four times the width, and the shortcut."""

    expansion = _BOTTLENECK_EXPANSION

    def __init__(self, shape: BlockShape) -> None:
        super().__init__()
        output = shape.width * self.expansion
        self.conv1 = nn.Conv2d(shape.channels, shape.width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(shape.width)
        self.conv2 = nn.Conv2d(shape.width, shape.width, 3, stride=shape.stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(shape.width)
        self.conv3 = nn.Conv2d(shape.width, output, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(output)
        self.downsample = _shortcut(shape, output)

    def forward(self, images: Tensor) -> Tensor:
        """relu(branch + shortcut): [N, channels, H, W] -> [N, 4 * width, H / stride, W / stride]."""
        branch = functional.relu(self.bn1(self.conv1(images)))
        branch = functional.relu(self.bn2(self.conv2(branch)))
        branch = self.bn3(self.conv3(branch))
        shortcut = images if self.downsample is None else self.downsample(images)
        return functional.relu(branch + shortcut)


class ResNet(nn.Module):
    """A 7x7 stem, four stages of residual blocks, a global mean and one dense layer.

    Takes float32 [N, 3, size, size] for any size of at least 32 and gives [N, classes]. Parameters bear torchvision's
    names: `conv1`, `bn1`, `layerS.B.convK`, `layerS.B.downsample.0`, `fc`.
    """

    def __init__(
        self,
        block: type[BasicBlock | Bottleneck],
        depths: tuple[int, int, int, int],
        classes: int = 1000,
        image_size: int = 224,
    ) -> None:
        super().__init__()
        self.input_shape = (3, image_size, image_size)
        self.conv1 = nn.Conv2d(3, _WIDTHS[0], 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(_WIDTHS[0])
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        first, second, third, fourth = _stages(block, depths)
        self.layer1 = first
        self.layer2 = second
        self.layer3 = third
        self.layer4 = fourth
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(_WIDTHS[-1] * block.expansion, classes)

    def forward(self, images: Tensor) -> Tensor:
        """The logits [N, classes] of float32 images [N, 3, size, size]."""
        features = self.maxpool(functional.relu(self.bn1(self.conv1(images))))
        features = self.layer4(self.layer3(self.layer2(self.layer1(features))))
        logits: Tensor = self.fc(torch.flatten(self.avgpool(features), 1))
        return logits


def resnet_18(classes: int = 1000, image_size: int = 224, seed: int = 0) -> ResNet:
    """ResNet-18: 11,689,512 parameters, random from `seed`."""
    return _seeded(ResNet(BasicBlock, (2, 2, 2, 2), classes, image_size), seed)


def resnet_34(classes: int = 1000, image_size: int = 224, seed: int = 0) -> ResNet:
    """ResNet-34: 21,797,672 parameters, random from `seed`."""
    return _seeded(ResNet(BasicBlock, (3, 4, 6, 3), classes, image_size), seed)


def resnet_50(classes: int = 1000, image_size: int = 224, seed: int = 0) -> ResNet:
    """ResNet-50: 25,557,032 parameters, random from `seed`."""
    return _seeded(ResNet(Bottleneck, (3, 4, 6, 3), classes, image_size), seed)


def resnet_101(classes: int = 1000, image_size: int = 224, seed: int = 0) -> ResNet:
    """ResNet-101: 44,549,160 parameters, random from `seed`."""
    return _seeded(ResNet(Bottleneck, (3, 4, 23, 3), classes, image_size), seed)


def resnet_152(classes: int = 1000, image_size: int = 224, seed: int = 0) -> ResNet:
    """ResNet-152: 60,192,808 parameters, random from `seed`."""
    return _seeded(ResNet(Bottleneck, (3, 8, 36, 3), classes, image_size), seed)


def _shortcut(shape: BlockShape, output: int) -> nn.Sequential | None:
    if shape.stride == 1 and shape.channels == output:
        return None
    return nn.Sequential(nn.Conv2d(shape.channels, output, 1, stride=shape.stride, bias=False), nn.BatchNorm2d(output))


def _stages(block: type[BasicBlock | Bottleneck], depths: tuple[int, int, int, int]) -> list[nn.Sequential]:
    stages: list[nn.Sequential] = []
    channels = _WIDTHS[0]
    for width, depth in zip(_WIDTHS, depths, strict=True):
        first_stride = 1 if not stages else 2
        blocks: list[nn.Module] = []
        for stride in (first_stride, *(1,) * (depth - 1)):
            blocks.append(block(BlockShape(channels, width, stride)))
            channels = width * block.expansion
        stages.append(nn.Sequential(*blocks))
    return stages


def _seeded(network: ResNet, seed: int) -> ResNet:
    blocks = {name: layer for name, layer in network.named_modules() if isinstance(layer, BasicBlock | Bottleneck)}
    # A branch doubles the variance it is given, and n branches are added: 1 / (2 n) each keeps the sum of order one.
    branch_gain = (2 * len(blocks)) ** -0.5
    gains = {}
    for name, block in blocks.items():
        gains[f"{name}.bn3" if isinstance(block, Bottleneck) else f"{name}.bn2"] = branch_gain
        gains[f"{name}.downsample.1"] = 0.5**0.5  # a projection has no ReLU to halve what its weights double
    initialise(network, seed, gains)
    return network.eval()
