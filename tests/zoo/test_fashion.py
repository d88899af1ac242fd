"""Fashion-MNIST is read exactly or refused, and its network is trained once and then read back."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
import torch

from slalom.errors import InputError, ModelError
from slalom.zoo import fashion_mnist
from slalom.zoo.fashion_mnist import DEBIAN_DIRECTORY, Split, load_split
from slalom.zoo.fashion_net import FashionNet, accuracy, train, trained_network

COUNT = 40


def _write(directory: Path, count: int = COUNT) -> tuple[np.ndarray, np.ndarray]:
    chance = np.random.default_rng(5)
    pixels = chance.integers(0, 256, (count, 28, 28), dtype=np.uint8)
    labels = chance.integers(0, 10, count, dtype=np.uint8)
    size = count.to_bytes(4, "big")
    images = bytes((0, 0, 8, 3)) + size + (28).to_bytes(4, "big") * 2 + pixels.tobytes()
    (directory / "t10k-images-idx3-ubyte.gz").write_bytes(gzip.compress(images))
    (directory / "t10k-labels-idx1-ubyte.gz").write_bytes(gzip.compress(bytes((0, 0, 8, 1)) + size + labels.tobytes()))
    return pixels, labels


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fashion_mnist, "_SPLITS", {"test": ("t10k", COUNT)})


def _separable(count: int) -> Split:
    """Ten classes that differ by the row that is lit: easily learnt."""
    labels = np.arange(count, dtype=np.int64) % 10
    images = np.random.default_rng(6).normal(0, 0.1, (count, 1, 28, 28)).astype(np.float32)
    for image, label in zip(images, labels, strict=True):
        image[0, 2 * label + 2 : 2 * label + 6] += 2
    return Split(images, labels)


@pytest.mark.usefixtures("small")
def test_images_and_labels_are_those_of_the_files(tmp_path: Path) -> None:
    pixels, labels = _write(tmp_path)
    split = load_split("test", tmp_path)
    assert split.images.shape == (COUNT, 1, 28, 28)
    assert split.images.dtype == np.float32
    assert np.array_equal(split.labels, labels)
    expected = (pixels.astype(np.float32) / np.float32(255) - np.float32(0.2860)) / np.float32(0.3530)
    assert np.array_equal(split.images[:, 0], expected)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("damage", ["gone", "not gzip", "cut", "short", "long", "header", "label"])
def test_a_damaged_file_is_refused(tmp_path: Path, damage: str) -> None:
    _write(tmp_path)
    path = tmp_path / "t10k-labels-idx1-ubyte.gz"
    packed = path.read_bytes()
    data = gzip.decompress(packed)
    changed = {
        "not gzip": data,
        "cut": packed[:-12],
        "short": gzip.compress(data[:-1]),
        "long": gzip.compress(data + b"\0"),
        "header": gzip.compress(b"\1" + data[1:]),
        "label": gzip.compress(data[:-1] + b"\x0a"),
    }
    path.unlink()
    if damage in changed:
        path.write_bytes(changed[damage])
    with pytest.raises(InputError, match="labels") as caught:
        load_split("test", tmp_path)
    assert damage != "gone" or "dataset-fashion-mnist" in str(caught.value.hint)


def test_an_unknown_split_is_refused() -> None:
    with pytest.raises(InputError, match="validation"):
        load_split("validation")


@pytest.mark.skipif(not DEBIAN_DIRECTORY.is_dir(), reason="needs Debian's dataset-fashion-mnist")
def test_the_test_images_are_there_and_even() -> None:
    split = load_split("test")
    assert split.images.shape == (10_000, 1, 28, 28)
    assert np.bincount(split.labels).tolist() == [1000] * 10
    assert abs(float(split.images.mean())) < 0.01
    assert abs(float(split.images.std()) - 1) < 0.01


def test_the_network_is_of_about_a_hundred_thousand_parameters_and_exports() -> None:
    network = FashionNet().eval()
    assert 80_000 < sum(parameter.numel() for parameter in network.parameters()) < 120_000
    images = torch.zeros(1, *network.input_shape)
    exported = torch.export.export(network, (images,)).module()
    assert torch.equal(exported(images), network(images))


def test_training_learns_and_is_a_function_of_the_seed() -> None:
    split = _separable(256)
    lines: list[str] = []
    first, again = train(split, lines.append), train(split, lines.append)
    assert accuracy(first, split) > 0.95
    assert not first.training
    assert torch.equal(first.head.weight, again.head.weight)
    assert lines[0].startswith("epoch 1 of ")


def test_weights_are_made_on_first_use_and_read_on_the_next(tmp_path: Path) -> None:
    loads: list[Split] = []

    def load_train() -> Split:
        loads.append(_separable(128))
        return loads[-1]

    cache = tmp_path / "deep" / "cache"
    first = trained_network(load_train, cache, lambda _line: None)
    second = trained_network(load_train, cache, lambda _line: None)
    assert len(loads) == 1
    assert not second.training
    for name, tensor in first.state_dict().items():
        assert torch.equal(tensor, second.state_dict()[name])
    (cache / "fashion_net.pt").write_bytes(b"broken")
    with pytest.raises(ModelError):
        trained_network(load_train, cache, lambda _line: None)
