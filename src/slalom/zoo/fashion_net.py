"""A small network for Fashion-MNIST, trained on first use: about a hundred thousand parameters, two minutes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from slalom.zoo.checkpoint import load_checkpoint
from slalom.zoo.fashion_mnist import CLASSES, IMAGE_SIZE, Split

_EPOCHS = 6
_BATCH_SIZE = 128
_PEAK_RATE = 0.01
_WEIGHT_DECAY = 0.01
_WEIGHTS_FILE = "fashion_net.pt"

Report = Callable[[str], None]


class FashionNet(nn.Module):
    """Four convolutions with batch norm, two maxima, one residual addition, a global mean and a dense layer.

    Takes float32 [N, 1, 28, 28] as `fashion_mnist.load_split` gives it, and gives [N, 10].
    """

    input_shape = (1, IMAGE_SIZE, IMAGE_SIZE)
    classes = CLASSES

    def __init__(self) -> None:
        super().__init__()
        self.first = _normalised(1, 24)
        self.second = _normalised(24, 48)
        self.third = _normalised(48, 80)
        self.fourth = _normalised(80, 80)
        self.pool = nn.MaxPool2d(2)
        self.mean = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(80, len(CLASSES))

    def forward(self, images: Tensor) -> Tensor:
        """The logits [N, 10] of float32 images [N, 1, 28, 28]."""
        features = self.pool(functional.relu(self.first(images)))
        features = self.pool(functional.relu(self.second(features)))
        features = functional.relu(self.third(features))
        features = functional.relu(self.fourth(features) + features)
        logits: Tensor = self.head(torch.flatten(self.mean(features), 1))
        return logits


def trained_network(load_train: Callable[[], Split], cache: Path, report: Report) -> FashionNet:
    """The trained network in evaluation mode: read from the directory `cache`, or trained and saved there.

    `load_train` gives the training split and is called only to train. Raises ModelError where the saved file is broken.
    """
    path = cache / _WEIGHTS_FILE
    network = FashionNet()
    if path.is_file():
        load_checkpoint(network, path)
        return network.eval()
    network = train(load_train(), report)
    cache.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    torch.save(network.state_dict(), partial)
    partial.replace(path)  # so that no half-written file is ever read
    return network


def train(split: Split, report: Report, seed: int = 0) -> FashionNet:
    """A network trained on `split` from `seed`; the same on one machine with one number of threads."""
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = FashionNet()
    # A third faster on a CPU. (The stubs of `to` leave the argument out.)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    images, labels = torch.from_numpy(split.images), torch.from_numpy(split.labels)
    batches = len(images) // _BATCH_SIZE
    optimiser = torch.optim.AdamW(network.parameters(), lr=_PEAK_RATE, weight_decay=_WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, _PEAK_RATE, total_steps=_EPOCHS * batches)
    for epoch in range(_EPOCHS):
        order = torch.randperm(len(images), generator=generator)
        total = 0.0
        for batch in order[: batches * _BATCH_SIZE].view(batches, _BATCH_SIZE):
            loss = functional.cross_entropy(network(_mirrored(images[batch], generator)), labels[batch])
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            schedule.step()
            total += loss.item()
        report(f"epoch {epoch + 1} of {_EPOCHS}: mean loss {total / batches:.3f}")
    network.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    return network.eval()


def accuracy(network: nn.Module, split: Split) -> float:
    """The share of `split`, 0..1, whose label has the largest logit."""
    hits = 0
    with torch.inference_mode():
        for begin in range(0, len(split.images), 1000):
            logits = network(torch.from_numpy(split.images[begin : begin + 1000]))
            hits += int((logits.argmax(dim=1).numpy() == split.labels[begin : begin + 1000]).sum())
    return hits / len(split.images)


def _normalised(channels: int, width: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width))


def _mirrored(images: Tensor, generator: torch.Generator) -> Tensor:
    # Half of the images left to right: clothes are clothes either way.
    chosen = torch.rand(len(images), 1, 1, 1, generator=generator) < 0.5
    return torch.where(chosen, images.flip(3), images)
