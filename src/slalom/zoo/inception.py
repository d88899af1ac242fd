"""Inception v3 (Szegedy et al. 2016, arXiv:1512.00567), without the auxiliary head, which serves only training.

The blocks are called A to E as in torchvision, whose parameter names they bear; figures are those of the paper.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from slalom.zoo.initialise import initialise

_EPSILON = 0.001

Kernel = int | tuple[int, int]


class BasicConv2d(nn.Module):
    """A convolution without bias, a batch norm and a ReLU; `same` padding for stride 1 unless told otherwise."""

    def __init__(self, channels: int, width: int, kernel: Kernel, *, stride: int = 1, padded: bool = True) -> None:
        super().__init__()
        rows, columns = (kernel, kernel) if isinstance(kernel, int) else kernel
        padding = (rows // 2, columns // 2) if padded else (0, 0)
        self.conv = nn.Conv2d(channels, width, (rows, columns), stride=stride, padding=padding, bias=False)
        self.bn = nn.BatchNorm2d(width, eps=_EPSILON)

    def forward(self, images: Tensor) -> Tensor:
        """[N, channels, H, W] -> [N, width, H', W'], none negative."""
        return functional.relu(self.bn(self.conv(images)))


class InceptionA(nn.Module):
    """Figure 5: 1x1, 5x5, two 3x3 and a pooled branch, at 35x35. Gives 224 + `pool_width` channels."""

    def __init__(self, channels: int, pool_width: int) -> None:
        super().__init__()
        self.branch1x1 = BasicConv2d(channels, 64, 1)
        self.branch5x5_1 = BasicConv2d(channels, 48, 1)
        self.branch5x5_2 = BasicConv2d(48, 64, 5)
        self.branch3x3dbl_1 = BasicConv2d(channels, 64, 1)
        self.branch3x3dbl_2 = BasicConv2d(64, 96, 3)
        self.branch3x3dbl_3 = BasicConv2d(96, 96, 3)
        self.branch_pool = BasicConv2d(channels, pool_width, 1)

    def forward(self, images: Tensor) -> Tensor:
        """[N, channels, H, W] -> [N, 224 + pool_width, H, W]."""
        five = self.branch5x5_2(self.branch5x5_1(images))
        three = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(images)))
        return torch.cat([self.branch1x1(images), five, three, self.branch_pool(_neighbourhood(images))], dim=1)


class InceptionB(nn.Module):
    """Section 5: halves the grid from 35x35 to 17x17 with two convolved branches and a maximum."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.branch3x3 = BasicConv2d(channels, 384, 3, stride=2, padded=False)
        self.branch3x3dbl_1 = BasicConv2d(channels, 64, 1)
        self.branch3x3dbl_2 = BasicConv2d(64, 96, 3)
        self.branch3x3dbl_3 = BasicConv2d(96, 96, 3, stride=2, padded=False)

    def forward(self, images: Tensor) -> Tensor:
        """[N, channels, H, W] -> [N, 480 + channels, (H - 1) // 2, (W - 1) // 2]."""
        double = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(images)))
        return torch.cat([self.branch3x3(images), double, _maximum(images)], dim=1)


class InceptionC(nn.Module):
    """Figure 6 with n = 7: 7x7 convolutions as pairs of 1x7 and 7x1, at 17x17. Gives 768 channels."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.branch1x1 = BasicConv2d(channels, 192, 1)
        self.branch7x7_1 = BasicConv2d(channels, width, 1)
        self.branch7x7_2 = BasicConv2d(width, width, (1, 7))
        self.branch7x7_3 = BasicConv2d(width, 192, (7, 1))
        self.branch7x7dbl_1 = BasicConv2d(channels, width, 1)
        self.branch7x7dbl_2 = BasicConv2d(width, width, (7, 1))
        self.branch7x7dbl_3 = BasicConv2d(width, width, (1, 7))
        self.branch7x7dbl_4 = BasicConv2d(width, width, (7, 1))
        self.branch7x7dbl_5 = BasicConv2d(width, 192, (1, 7))
        self.branch_pool = BasicConv2d(channels, 192, 1)

    def forward(self, images: Tensor) -> Tensor:
        """[N, channels, H, W] -> [N, 768, H, W]."""
        single = self.branch7x7_3(self.branch7x7_2(self.branch7x7_1(images)))
        double = self.branch7x7dbl_3(self.branch7x7dbl_2(self.branch7x7dbl_1(images)))
        double = self.branch7x7dbl_5(self.branch7x7dbl_4(double))
        return torch.cat([self.branch1x1(images), single, double, self.branch_pool(_neighbourhood(images))], dim=1)


class InceptionD(nn.Module):
    """Halves the grid from 17x17 to 8x8: a 3x3 branch, a 7x7 branch and a maximum."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.branch3x3_1 = BasicConv2d(channels, 192, 1)
        self.branch3x3_2 = BasicConv2d(192, 320, 3, stride=2, padded=False)
        self.branch7x7x3_1 = BasicConv2d(channels, 192, 1)
        self.branch7x7x3_2 = BasicConv2d(192, 192, (1, 7))
        self.branch7x7x3_3 = BasicConv2d(192, 192, (7, 1))
        self.branch7x7x3_4 = BasicConv2d(192, 192, 3, stride=2, padded=False)

    def forward(self, images: Tensor) -> Tensor:
        """[N, channels, H, W] -> [N, 512 + channels, (H - 1) // 2, (W - 1) // 2]."""
        three = self.branch3x3_2(self.branch3x3_1(images))
        seven = self.branch7x7x3_3(self.branch7x7x3_2(self.branch7x7x3_1(images)))
        return torch.cat([three, self.branch7x7x3_4(seven), _maximum(images)], dim=1)


class InceptionE(nn.Module):
    """Figure 7: branches that split into 1x3 and 3x1 side by side, at 8x8. Gives 2048 channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.branch1x1 = BasicConv2d(channels, 320, 1)
        self.branch3x3_1 = BasicConv2d(channels, 384, 1)
        self.branch3x3_2a = BasicConv2d(384, 384, (1, 3))
        self.branch3x3_2b = BasicConv2d(384, 384, (3, 1))
        self.branch3x3dbl_1 = BasicConv2d(channels, 448, 1)
        self.branch3x3dbl_2 = BasicConv2d(448, 384, 3)
        self.branch3x3dbl_3a = BasicConv2d(384, 384, (1, 3))
        self.branch3x3dbl_3b = BasicConv2d(384, 384, (3, 1))
        self.branch_pool = BasicConv2d(channels, 192, 1)

    def forward(self, images: Tensor) -> Tensor:
        """[N, channels, H, W] -> [N, 2048, H, W]."""
        single = self.branch3x3_1(images)
        double = self.branch3x3dbl_2(self.branch3x3dbl_1(images))
        split = [self.branch3x3_2a(single), self.branch3x3_2b(single)]
        split += [self.branch3x3dbl_3a(double), self.branch3x3dbl_3b(double)]
        return torch.cat([self.branch1x1(images), *split, self.branch_pool(_neighbourhood(images))], dim=1)


class InceptionV3(nn.Module):
    """The whole network of table 1: a stem of convolutions, eleven mixed blocks, a global mean and one dense layer.

    Takes float32 [N, 3, size, size] for any size of at least 75 (299 is its own) and gives [N, classes]. The input is
    normalised by the caller: torchvision's `transform_input` is not applied.
    """

    ignored_keys = ("AuxLogits.",)

    def __init__(self, classes: int = 1000, image_size: int = 299) -> None:
        super().__init__()
        self.input_shape = (3, image_size, image_size)
        self.Conv2d_1a_3x3 = BasicConv2d(3, 32, 3, stride=2, padded=False)
        self.Conv2d_2a_3x3 = BasicConv2d(32, 32, 3, padded=False)
        self.Conv2d_2b_3x3 = BasicConv2d(32, 64, 3)
        self.Conv2d_3b_1x1 = BasicConv2d(64, 80, 1)
        self.Conv2d_4a_3x3 = BasicConv2d(80, 192, 3, padded=False)
        self.Mixed_5b = InceptionA(192, pool_width=32)
        self.Mixed_5c = InceptionA(256, pool_width=64)
        self.Mixed_5d = InceptionA(288, pool_width=64)
        self.Mixed_6a = InceptionB(288)
        self.Mixed_6b = InceptionC(768, width=128)
        self.Mixed_6c = InceptionC(768, width=160)
        self.Mixed_6d = InceptionC(768, width=160)
        self.Mixed_6e = InceptionC(768, width=192)
        self.Mixed_7a = InceptionD(768)
        self.Mixed_7b = InceptionE(1280)
        self.Mixed_7c = InceptionE(2048)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(0.5)
        self.fc = nn.Linear(2048, classes)

    def forward(self, images: Tensor) -> Tensor:
        """The logits [N, classes] of float32 images [N, 3, size, size]."""
        features = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(images)))
        features = self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(_maximum(features)))
        features = self.Mixed_5d(self.Mixed_5c(self.Mixed_5b(_maximum(features))))
        features = self.Mixed_6c(self.Mixed_6b(self.Mixed_6a(features)))
        features = self.Mixed_6e(self.Mixed_6d(features))
        features = self.Mixed_7c(self.Mixed_7b(self.Mixed_7a(features)))
        logits: Tensor = self.fc(self.dropout(torch.flatten(self.avgpool(features), 1)))
        return logits


def inception_v3(classes: int = 1000, image_size: int = 299, seed: int = 0) -> InceptionV3:
    """Inception v3 without the auxiliary head: 23,834,568 parameters, random from `seed`."""
    network = InceptionV3(classes, image_size)
    initialise(network, seed)
    return network.eval()


def _neighbourhood(images: Tensor) -> Tensor:
    # The zeros of the border count in the mean, as in torchvision: every window divides by nine.
    return functional.avg_pool2d(images, kernel_size=3, stride=1, padding=1, count_include_pad=True)


def _maximum(images: Tensor) -> Tensor:
    return functional.max_pool2d(images, kernel_size=3, stride=2)
