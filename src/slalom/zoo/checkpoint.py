"""Weights from a file into a network: PyTorch's format, read without running code, or safetensors."""

from __future__ import annotations

import pickle
import struct
from collections.abc import Collection, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from slalom.errors import ModelError
from slalom.zoo.safetensors import read_safetensors

_NAMED = 3
# What torch.load is seen to raise on damaged files: it walks a small language without checking its every step.
_BROKEN = (
    pickle.UnpicklingError,
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
    struct.error,
)
_COUNTER = ".num_batches_tracked"  # absent from checkpoints of before 2018, and without effect on inference


def load_checkpoint(module: nn.Module, path: Path) -> None:
    """Copies the weights of the state dict in `path` (.pt, .pth or .safetensors) into `module`.

    Every parameter and buffer must be there with its shape, and nothing else; a class attribute `ignored_keys` names
    prefixes of keys to skip. Raises ModelError for a missing or broken file, a wrong set of keys, a wrong shape, or a
    weight that is not a finite number; `module` is then unchanged.
    """
    state = read_checkpoint(path)
    ignored = tuple(getattr(module, "ignored_keys", ()))
    state = {name: tensor for name, tensor in state.items() if not name.startswith(ignored)} if ignored else state
    expected = module.state_dict()
    _check_names(path, expected, state)
    _check_tensors(path, expected, state)
    module.load_state_dict(expected | state)


def read_checkpoint(path: Path) -> dict[str, Tensor]:
    """The state dict in `path`, also where it stands under the key `state_dict`; raises ModelError as above."""
    if not path.is_file():
        raise ModelError(f"no weights at {path}")
    if path.suffix == ".safetensors":
        return read_safetensors(path)
    if path.suffix not in (".pt", ".pth"):
        raise ModelError(f"{path.name} is not a checkpoint", hint="known endings: .pt, .pth, .safetensors")
    try:
        content: object = torch.load(path, map_location="cpu", weights_only=True)
    except _BROKEN as error:
        raise ModelError(
            f"{path.name} cannot be read as a state dict", hint="save it with torch.save(model.state_dict(), path)"
        ) from error
    if isinstance(content, Mapping) and isinstance(content.get("state_dict"), Mapping):
        content = content["state_dict"]
    return _state_dict(path, content)


def _state_dict(path: Path, content: object) -> dict[str, Tensor]:
    if not isinstance(content, Mapping) or not content:
        raise ModelError(
            f"{path.name} holds a {type(content).__name__} instead of a state dict",
            hint="save it with torch.save(model.state_dict(), path)",
        )
    state: dict[str, Tensor] = {}
    for name, tensor in content.items():
        if not isinstance(name, str) or not isinstance(tensor, Tensor):
            raise ModelError(f"{path.name} is not a state dict: {name!r} is a {type(tensor).__name__}")
        state[name] = tensor
    return state


def _check_names(path: Path, expected: Collection[str], found: Collection[str]) -> None:
    missing = [name for name in expected if name not in found and not name.endswith(_COUNTER)]
    unexpected = [name for name in found if name not in expected]
    if missing:
        raise ModelError(f"{path.name} lacks {_some(missing)} of the network's {len(expected)} tensors")
    if unexpected:
        raise ModelError(f"{path.name} has {_some(unexpected)} that the network has not")


def _check_tensors(path: Path, expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> None:
    for name, tensor in found.items():
        if tensor.shape != expected[name].shape:
            raise ModelError(
                f"{path.name}: {name} has shape {tuple(tensor.shape)}, the network's is {tuple(expected[name].shape)}"
            )
        if not bool(torch.isfinite(tensor).all()):
            raise ModelError(f"{path.name}: {name} is not finite everywhere")


def _some(names: list[str]) -> str:
    listed = ", ".join(names[:_NAMED])
    rest = len(names) - _NAMED
    return f"{listed} and {rest} more" if rest > 0 else listed
