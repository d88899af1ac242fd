"""A compiled network: a validated graph, its tensors, and the digest that names both."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from io import BytesIO
from pathlib import Path
from types import MappingProxyType
from typing import BinaryIO

import numpy as np

from slalom.errors import ModelError
from slalom.plan.container import read_container, write_container, write_stream
from slalom.plan.manifest import decode_graph, encode_graph
from slalom.plan.steps import Graph, ValueType
from slalom.plan.validation import check_graph, check_tensors, infer_types

_METADATA = {"manifest", "digest"}


@dataclass(frozen=True)
class Plan:
    """A network both sides agree on: `graph` says what to compute, `tensors` holds its int8 and float32 arrays.

    Making one checks everything (`validation`); a Plan that exists is valid, and its tensors are read-only. Raises
    ModelError.
    """

    graph: Graph
    tensors: Mapping[str, np.ndarray]

    def __post_init__(self) -> None:
        check_graph(self.graph, self.tensors)
        object.__setattr__(
            self, "tensors", MappingProxyType({name: _locked(self.tensors[name]) for name in self.tensors})
        )

    @cached_property
    def types(self) -> Mapping[str, ValueType]:
        """The type of every value, by name."""
        return infer_types(self.graph)

    @cached_property
    def digest(self) -> str:
        """SHA-256, in hexadecimal, of the canonical content: manifest and every tensor, each length-prefixed."""
        return content_digest(encode_graph(self.graph), self.tensors)

    def save(self, path: str | Path) -> None:
        """Writes a `.slalom` file, whole or not at all. Raises ModelError where the place cannot be written."""
        try:
            write_container(Path(path), self._metadata, self.tensors)
        except OSError as error:
            raise ModelError(f"cannot write {path}: {error.strerror}") from error

    def write(self, file: BinaryIO) -> None:
        """Writes the bytes of a `.slalom` file to an open one, from where it stands."""
        write_stream(file, self._metadata, self.tensors)

    def to_bytes(self) -> bytes:
        """The bytes of a `.slalom` file."""
        file = BytesIO()
        self.write(file)
        return file.getvalue()

    @property
    def _metadata(self) -> dict[str, str]:
        return {"manifest": encode_graph(self.graph), "digest": self.digest}

    @classmethod
    def load(cls, path: str | Path) -> Plan:
        """Reads a `.slalom` file into memory and checks it whole. Raises ModelError naming what is wrong.

        The file is copied in before it is hashed, so a disk that changes under the reader changes nothing.
        """
        try:
            with Path(path).open("rb") as file:
                return cls.read(file)
        except OSError as error:
            raise ModelError(f"cannot read plan {path}: {error.strerror}") from error

    @classmethod
    def read(cls, file: BinaryIO) -> Plan:
        """The plan in an open file, from where it stands to its end; as `load`."""
        return cls._read(file, os.fstat(file.fileno()).st_size - file.tell())

    @classmethod
    def from_bytes(cls, content: bytes) -> Plan:
        """The plan in the bytes of a `.slalom` file; as `load`."""
        return cls._read(BytesIO(content), len(content))

    @classmethod
    def _read(cls, file: BinaryIO, size: int) -> Plan:
        metadata, tensors = read_container(file, size)
        if set(metadata) != _METADATA:
            raise ModelError("this safetensors file is not a slalom plan", hint="make one with `slalom compile`")
        graph = decode_graph(metadata["manifest"])
        check_tensors(tensors)
        canonical = encode_graph(graph)
        if canonical != metadata["manifest"] or content_digest(canonical, tensors) != metadata["digest"]:
            raise ModelError("the plan's content does not match its digest: the file was damaged or altered")
        return cls(graph, tensors)


def _locked(tensor: np.ndarray) -> np.ndarray:
    """A view that cannot be written to: what was checked and digested stays so."""
    view = tensor.view()
    view.flags.writeable = False
    return view


def content_digest(manifest: str, tensors: Mapping[str, np.ndarray]) -> str:
    """SHA-256 over the manifest and the tensors in order of name."""
    digest = hashlib.sha256(b"slalom-plan-v1")
    _feed(digest, manifest.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        _feed(digest, name.encode())
        _feed(digest, f"{tensor.dtype.str}{list(tensor.shape)}".encode())
        digest.update(tensor.nbytes.to_bytes(8, "little"))
        digest.update(np.ascontiguousarray(tensor).data)
    return digest.hexdigest()


def _feed(digest: hashlib._Hash, part: bytes) -> None:
    digest.update(len(part).to_bytes(8, "little"))
    digest.update(part)
