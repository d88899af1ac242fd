"""MobileNet v1 (Howard et al. 2017, arXiv:1704.04861) and the separable variant of Slalom (Tramèr and Boneh 2019)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from slalom.zoo.initialise import initialise

_STEM_WIDTH = 32
# (output channels, stride) of every depthwise-separable block.
_BLOCKS = (
    (64, 1),
    (128, 2),
    (128, 1),
    (256, 2),
    (256, 1),
    (512, 2),
    (512, 1),
    (512, 1),
    (512, 1),
    (512, 1),
    (512, 1),
    (1024, 2),
    (1024, 1),
)


class MobileNet(nn.Module):
    """A 3x3 stem, thirteen depthwise-separable blocks, a global mean and one dense layer.

    Takes float32 [N, 3, size, size] for any size of at least 32 and gives [N, classes]. Padding is one pixel on
    every side. With `fused_blocks`, a depthwise convolution is followed directly by its pointwise convolution, with no
    batch norm and no activation between: two linear maps that the device can apply in one exchange.
    """

    def __init__(self, classes: int = 1000, image_size: int = 224, *, fused_blocks: bool = False) -> None:
        super().__init__()
        self.input_shape = (3, image_size, image_size)
        block = _fused_block if fused_blocks else _block
        blocks: list[nn.Module] = []
        channels = _STEM_WIDTH
        for width, stride in _BLOCKS:
            blocks.append(block(channels, width, stride))
            channels = width
        self.stem = _normalised(nn.Conv2d(3, _STEM_WIDTH, 3, stride=2, padding=1, bias=False))
        self.blocks = nn.Sequential(*blocks)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(channels, classes)

    def forward(self, images: Tensor) -> Tensor:
        """The logits [N, classes] of float32 images [N, 3, size, size]."""
        pooled = self.avgpool(self.blocks(self.stem(images)))
        logits: Tensor = self.classifier(torch.flatten(pooled, 1))
        return logits


def mobilenet(classes: int = 1000, image_size: int = 224, seed: int = 0) -> MobileNet:
    """MobileNet v1 of width 1: 4,231,976 parameters, random from `seed`."""
    network = MobileNet(classes, image_size)
    initialise(network, seed)
    return network.eval()


def mobilenet_sep(classes: int = 1000, image_size: int = 224, seed: int = 0) -> MobileNet:
    """The variant with nothing between depthwise and pointwise: 4,222,056 parameters, random from `seed`."""
    network = MobileNet(classes, image_size, fused_blocks=True)
    # Two He-scaled linear maps and one ReLU double the variance of every block: take it out again.
    norms = [name for name, layer in network.blocks.named_modules() if isinstance(layer, nn.BatchNorm2d)]
    initialise(network, seed, {f"blocks.{name}": 0.5**0.5 for name in norms})
    return network.eval()


def _normalised(convolution: nn.Conv2d) -> nn.Sequential:
    return nn.Sequential(convolution, nn.BatchNorm2d(convolution.out_channels), nn.ReLU6())


def _block(channels: int, width: int, stride: int) -> nn.Sequential:
    return nn.Sequential(_normalised(_depthwise(channels, stride)), _normalised(_pointwise(channels, width)))


def _fused_block(channels: int, width: int, stride: int) -> nn.Sequential:
    return nn.Sequential(_depthwise(channels, stride), _normalised(_pointwise(channels, width)))


def _depthwise(channels: int, stride: int) -> nn.Conv2d:
    return nn.Conv2d(channels, channels, 3, stride=stride, padding=1, groups=channels, bias=False)


def _pointwise(channels: int, width: int) -> nn.Conv2d:
    return nn.Conv2d(channels, width, 1, bias=False)
