"""The safetensors format: a 64-bit header length, a JSON header, then the tensors' bytes (huggingface/safetensors)."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TypeGuard

import torch
from torch import Tensor

from slalom.errors import ModelError

_PREFIX_SIZE = 8
_MAXIMUM_HEADER_SIZE = 100_000_000  # the format's own limit
_TYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """The tensors of the file `path` by name. Raises ModelError where the file does not follow the format."""
    data = bytearray(path.read_bytes())
    header_size = int.from_bytes(data[:_PREFIX_SIZE], "little")
    start = _PREFIX_SIZE + header_size
    if len(data) < _PREFIX_SIZE or header_size > _MAXIMUM_HEADER_SIZE or start > len(data):
        raise ModelError(f"{path.name} is not a safetensors file: its header does not fit")
    try:
        header: object = json.loads(data[_PREFIX_SIZE:start])
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{path.name} is not a safetensors file: its header is no JSON") from error
    if not isinstance(header, dict):
        raise ModelError(f"{path.name} is not a safetensors file: its header is no object")
    tensors = {name: entry for name, entry in header.items() if name != "__metadata__"}
    body = memoryview(data)[start:]
    return {name: _tensor(f"{path.name}: {name}", entry, body) for name, entry in tensors.items()}


def _tensor(label: str, entry: object, data: memoryview) -> Tensor:
    if not isinstance(entry, dict) or not isinstance(entry.get("dtype"), str) or entry["dtype"] not in _TYPES:
        raise ModelError(f"{label} has no known type")
    shape, offsets = entry.get("shape"), entry.get("data_offsets")
    if not _are_counts(shape) or not _are_counts(offsets) or len(offsets) != 2:
        raise ModelError(f"{label} has no valid shape and offsets")
    dtype: torch.dtype = _TYPES[entry["dtype"]]
    begin, end = offsets
    count = math.prod(shape)
    if end > len(data) or end - begin != count * dtype.itemsize:
        raise ModelError(f"{label} does not have the size that its shape gives")
    if count == 0:
        return torch.empty(shape, dtype=dtype)
    return torch.frombuffer(bytearray(data[begin:end]), dtype=dtype).reshape(shape)


def _are_counts(value: object) -> TypeGuard[list[int]]:
    return isinstance(value, list) and all(type(item) is int and item >= 0 for item in value)
