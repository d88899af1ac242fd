"""From the text `package.module:factory` to the network it names."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType, ModuleType

import torch
from torch import nn

from slalom.errors import ModelError


def build(reference: str, seed: int, arguments: Mapping[str, object] = MappingProxyType({})) -> nn.Module:
    """The network, in evaluation mode, that `reference` makes when called with `arguments`.

    `reference` is `package.module:factory` or `path/to/file.py:factory`, where the factory is anything that can be
    called and returns an `nn.Module` (a class will do), or is a module already. PyTorch's own generator is seeded with
    `seed` for the call and then put back. Runs the code it names. Raises ModelError where there is none.
    """
    factory = _resolve(reference)
    if isinstance(factory, nn.Module):
        return factory.eval()
    if not callable(factory):
        raise ModelError(f"{reference} is no function or class that makes a network")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = factory(**arguments)
    if not isinstance(network, nn.Module):
        raise ModelError(f"{reference} made a {type(network).__name__} instead of a torch.nn.Module")
    return network.eval()


def _resolve(reference: str) -> object:
    location, _, attribute = reference.rpartition(":")
    module = _source_file(Path(location)) if location.endswith(".py") else _importable(location)
    value: object = module
    for part in attribute.split("."):
        value = getattr(value, part, None)
        if value is None:
            raise ModelError(f"{location} has no {attribute!r}", hint="give package.module:factory")
    return value


def _importable(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except (ImportError, ValueError) as error:  # ValueError: an empty or relative name
        raise ModelError(
            f"cannot import {name!r}: {error}", hint="is it installed? a file is given as path/to/file.py:factory"
        ) from error


def _source_file(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if not path.is_file() or spec is None or spec.loader is None:
        raise ModelError(f"{path} is not a file")
    module = importlib.util.module_from_spec(spec)
    sys.modules.setdefault(path.stem, module)  # dataclasses and pickle look their module up by name
    spec.loader.exec_module(module)
    return module
