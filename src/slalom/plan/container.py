"""The file format: safetensors (8-byte header length, JSON header, tensor bytes), read strictly.

Read here by hand because the trusted side parses it and carries no parser it does not need. Nothing is sized from a
number in the file before that number has been compared with the file's true size.
Source: the safetensors format, https://github.com/huggingface/safetensors#format
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, BinaryIO

import numpy as np

from slalom.errors import ModelError
from slalom.files import written_whole

MAXIMUM_HEADER_SIZE = 64 * 1024 * 1024
MAXIMUM_RANK = 8


_DTYPES: dict[str, np.dtype[Any]] = {"I8": np.dtype("<i1"), "F32": np.dtype("<f4")}
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}


def write_container(path: Path, metadata: Mapping[str, str], tensors: Mapping[str, np.ndarray]) -> None:
    """Writes int8 and float32 tensors and text metadata; the file appears whole or not at all."""
    with written_whole(path) as file:
        write_stream(file, metadata, tensors)


def write_stream(file: IO[bytes], metadata: Mapping[str, str], tensors: Mapping[str, np.ndarray]) -> None:
    """Writes the same to an open file."""
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    offset = 0
    for name in sorted(tensors):
        tensor = tensors[name]
        header[name] = {
            "dtype": _NAMES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [offset, offset + tensor.nbytes],
        }
        offset += tensor.nbytes
    encoded = json.dumps(header, separators=(",", ":")).encode()
    encoded += b" " * (-len(encoded) % 8)
    file.write(struct.pack("<Q", len(encoded)) + encoded)
    for name in sorted(tensors):
        file.write(np.ascontiguousarray(tensors[name]).data)
    file.flush()


def read_container(file: BinaryIO, size: int) -> tuple[dict[str, str], dict[str, np.ndarray]]:
    """The metadata and tensors of a file of `size` bytes. Raises ModelError for anything not canonical."""
    header_size = _read_header_size(file, size)
    header = _parse_header(file.read(header_size), header_size)
    metadata = header.pop("__metadata__", None)
    if not isinstance(metadata, dict) or not all(isinstance(text, str) for text in metadata.values()):
        raise ModelError("the plan file has no manifest", hint="was it written by `slalom compile`?")
    data_size = size - 8 - header_size
    layout = _check_layout(header, data_size)
    tensors: dict[str, np.ndarray] = {}
    for name, dtype, shape, count in layout:
        tensor = (
            np.fromfile(file, dtype=dtype, count=count) if _is_real_file(file) else _from_stream(file, dtype, count)
        )
        if tensor.size != count:
            raise ModelError(f"the plan file is truncated inside tensor {name!r:.80}")
        tensors[name] = tensor.reshape(shape)
    return metadata, tensors


def _read_header_size(file: BinaryIO, size: int) -> int:
    prefix = file.read(8)
    if len(prefix) < 8:
        raise ModelError("the plan file is truncated: it has no header")
    (header_size,) = struct.unpack("<Q", prefix)
    if header_size > min(size - 8, MAXIMUM_HEADER_SIZE):
        raise ModelError("the plan file is truncated or not a plan: its header is longer than the file allows")
    return int(header_size)


def _parse_header(raw: bytes, header_size: int) -> dict[str, Any]:
    if len(raw) != header_size:
        raise ModelError("the plan file is truncated inside its header")
    try:
        header = json.loads(raw.decode("utf-8"), object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise ModelError("the plan file's header is not readable JSON") from error
    if not isinstance(header, dict):
        raise ModelError("the plan file's header is not an object")
    return header


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    mapping = dict(pairs)
    if len(mapping) != len(pairs):
        raise ValueError("a key appears twice")
    return mapping


def _check_layout(header: dict[str, Any], data_size: int) -> list[tuple[str, np.dtype[Any], tuple[int, ...], int]]:
    layout = []
    expected = 0
    for name, entry in header.items():
        dtype, shape, begin, end = _check_entry(name, entry)
        count = 1
        for extent in shape:
            count *= extent
        if begin != expected or end - begin != count * dtype.itemsize or end > data_size:
            raise ModelError(f"tensor {name!r:.80}: its bytes do not lie where its shape says")
        layout.append((name, dtype, shape, count))
        expected = end
    if expected != data_size:
        raise ModelError(f"the plan file holds {data_size - expected} bytes that no tensor names")
    return layout


def _check_entry(name: str, entry: Any) -> tuple[np.dtype[Any], tuple[int, ...], int, int]:
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise ModelError(f"tensor {name!r:.80}: unknown or missing fields")
    dtype = _DTYPES.get(entry["dtype"]) if isinstance(entry["dtype"], str) else None
    if dtype is None:
        raise ModelError(f"tensor {name!r:.80}: its type is not one of {', '.join(_DTYPES)}")
    shape, offsets = entry["shape"], entry["data_offsets"]
    right = _are_sizes(shape) and len(shape) <= MAXIMUM_RANK and 0 not in shape  # NumPy has no 0 by 2^80 array
    if not right or not _are_sizes(offsets) or len(offsets) != 2:
        raise ModelError(f"tensor {name!r:.80}: its shape or offsets are not sizes")
    return dtype, tuple(shape), offsets[0], offsets[1]


def _are_sizes(value: Any) -> bool:
    return isinstance(value, list) and all(type(item) is int and 0 <= item < 2**40 for item in value)


def _is_real_file(file: BinaryIO) -> bool:
    try:
        file.fileno()
    except OSError:
        return False
    return True


def _from_stream(file: BinaryIO, dtype: np.dtype[Any], count: int) -> np.ndarray:
    return np.frombuffer(file.read(count * dtype.itemsize), dtype=dtype).copy()
