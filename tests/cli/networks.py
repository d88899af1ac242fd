"""Tiny networks that the command line's tests name as `tests.cli.networks:NAME`."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from slalom.plan.steps import Preprocessing

CLASSES = ("cat", "[bold]dog[/nonsense]", "a name that is long enough to need a second line in a narrow window", "")


class Tiny(nn.Module):
    """A convolution, a depthwise one and a dense layer on 12x12 images."""

    input_shape: tuple[int, ...] | None = (3, 12, 12)

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, stride=2, padding=1)
        self.depthwise = nn.Conv2d(6, 6, 3, padding=1, groups=6)
        self.head = nn.Linear(6 * 36, 4)

    def forward(self, images: Tensor) -> Tensor:
        values = torch.relu(self.stem(images))
        values = torch.sigmoid(self.depthwise(values))
        return self.head(values.flatten(1))


class Photographic(Tiny):
    """The same, and it says how a photo becomes its input and what its classes are called."""

    preprocessing = Preprocessing(12, 14, "bilinear", (127.0,) * 3, (128.0,) * 3)
    classes = CLASSES


class TwoOutputs(Tiny):
    """Two outputs, the second an image."""

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        values = self.stem(images)
        return self.head(torch.relu(values).flatten(1)), values


class NeverANumber(Tiny):
    """Its float answers are NaN outside compilation; the integers know nothing of it."""

    def forward(self, images: Tensor) -> Tensor:
        answer = super().forward(images)
        return answer if torch.compiler.is_compiling() or len(images) > 1 else answer * torch.nan


class WithoutShape(Tiny):
    """Does not say its input shape."""

    input_shape = None


class Unsupported(Tiny):
    """Has an operator that cannot be compiled."""

    def forward(self, images: Tensor) -> Tensor:
        return torch.cumsum(super().forward(images), 1)


class Failing(Tiny):
    """Raises when called."""

    def forward(self, images: Tensor) -> Tensor:
        raise ZeroDivisionError("one by nothing")


class Chatty(Tiny):
    """Prints while it is made."""

    def __init__(self) -> None:
        super().__init__()
        print("hello from the network")


tiny = Tiny
nothing = None


def broken() -> nn.Module:
    """Raises instead of making a network."""
    raise KeyError("weights\nof a second line")


def number() -> int:
    """Makes no network."""
    return 3
