"""VGG (Simonyan and Zisserman 2015, arXiv:1409.1556), configurations D and E, without batch norm."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from slalom.zoo.initialise import initialise

_CONVOLUTIONS_OF_16 = (2, 2, 3, 3, 3)
_CONVOLUTIONS_OF_19 = (2, 2, 4, 4, 4)
_WIDTHS = (64, 128, 256, 512, 512)
_POOLED_SIZE = 7


class Vgg(nn.Module):
    """Five stages of 3x3 convolutions, each ended by a 2x2 maximum, then three dense layers.

    Takes float32 [N, 3, size, size] for any size of at least 32 and gives [N, classes]. Parameters bear torchvision's
    names: `features.K.weight` and `classifier.0`, `.3`, `.6`. `hidden_width` narrows the two hidden dense layers.
    """

    def __init__(
        self, convolutions: tuple[int, ...], classes: int = 1000, image_size: int = 224, hidden_width: int = 4096
    ) -> None:
        super().__init__()
        self.input_shape = (3, image_size, image_size)
        self.features = nn.Sequential(*_stages(convolutions))
        self.avgpool = nn.AdaptiveAvgPool2d(_POOLED_SIZE)
        self.classifier = nn.Sequential(
            nn.Linear(_WIDTHS[-1] * _POOLED_SIZE**2, hidden_width),
            nn.ReLU(),
            nn.Dropout(0.5),
            nn.Linear(hidden_width, hidden_width),
            nn.ReLU(),
            nn.Dropout(0.5),
            nn.Linear(hidden_width, classes),
        )

    def forward(self, images: Tensor) -> Tensor:
        """The logits [N, classes] of float32 images [N, 3, size, size]."""
        pooled = self.avgpool(self.features(images))
        logits: Tensor = self.classifier(torch.flatten(pooled, 1))
        return logits


def vgg_16(classes: int = 1000, image_size: int = 224, seed: int = 0, hidden_width: int = 4096) -> Vgg:
    """VGG16: 13 convolutions and 3 dense layers, 138,357,544 parameters, random from `seed`."""
    return _seeded(Vgg(_CONVOLUTIONS_OF_16, classes, image_size, hidden_width), seed)


def vgg_19(classes: int = 1000, image_size: int = 224, seed: int = 0, hidden_width: int = 4096) -> Vgg:
    """VGG19: 16 convolutions and 3 dense layers, 143,667,240 parameters, random from `seed`."""
    return _seeded(Vgg(_CONVOLUTIONS_OF_19, classes, image_size, hidden_width), seed)


def _stages(convolutions: tuple[int, ...]) -> list[nn.Module]:
    layers: list[nn.Module] = []
    channels = 3
    for count, width in zip(convolutions, _WIDTHS, strict=True):
        for _ in range(count):
            layers += [nn.Conv2d(channels, width, kernel_size=3, padding=1), nn.ReLU()]
            channels = width
        layers.append(nn.MaxPool2d(kernel_size=2))
    return layers


def _seeded(network: Vgg, seed: int) -> Vgg:
    initialise(network, seed)
    return network.eval()
