"""The class names stand in ImageNet's order."""

from __future__ import annotations

import pytest

from slalom.errors import ModelError
from slalom.zoo.classes import class_names


def test_imagenet_has_a_thousand_different_names() -> None:
    names = class_names("imagenet")
    assert len(names) == len(set(names)) == 1000
    assert all(name == name.strip() and "_" not in name and "," not in name for name in names)
    assert all(names)


@pytest.mark.parametrize(
    ("label", "name"),
    [
        (0, "tench"),
        (134, "crane (bird)"),
        (243, "bull mastiff"),
        (281, "tabby"),
        (517, "crane (machine)"),
        (638, "maillot (tights)"),
        (639, "maillot (tank suit)"),
        (999, "toilet tissue"),
    ],
)
def test_known_labels_have_their_names(label: int, name: str) -> None:
    assert class_names("imagenet")[label] == name


def test_another_dataset_is_refused() -> None:
    with pytest.raises(ModelError, match="cifar"):
        class_names("cifar")
