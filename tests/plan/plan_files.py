"""A tiny plan written out by hand, and plan files taken apart and put together again, right or wrong."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from slalom.plan import Plan
from slalom.plan.plan import content_digest
from slalom.plan.steps import (
    Accumulator,
    Activation,
    Affine,
    Apply,
    Convolution,
    Function,
    Graph,
    Input,
    Layout,
    Linear,
    Output,
    Pointwise,
    Real,
)

GOLDEN_DIGEST = "61e66a8a9cca426d52d2f010cfe1c5d31b74d6490cd9d035621439506dbe74ac"


def tiny_parts() -> tuple[Graph, dict[str, np.ndarray]]:
    """One 2x2 convolution over a (3, 3, 1) image, ReLU, float output: every number stands here."""
    weight = np.array([1, -2, 3, 127], np.int8).reshape(2, 2, 1, 1)
    tensors = {"w": weight, "m": np.array([0.5], np.float32), "b": np.array([-1.25], np.float32)}
    graph = Graph(
        model="tiny",
        input=Input("image", Layout.CHANNELS_FIRST, Activation((3, 3, 1), 0.125, 8)),
        steps=(
            Linear(
                "conv",
                "image",
                (Convolution("w", (1, 1), (0, 0, 0, 0), (1, 1), 1),),
                Accumulator((2, 2, 1), 133 * 127),
            ),
            Pointwise("out", "conv", (Affine("m", "b"), Apply(Function.RELU)), Real((2, 2, 1))),
        ),
        outputs=(Output("out", Layout.PLAIN),),
        classes=("a", "b"),
    )
    return graph, tensors


def tiny_plan() -> Plan:
    """The same as a plan."""
    return Plan(*tiny_parts())


def content_of(plan: Plan) -> bytes:
    """The bytes of a plan's file."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "x.slalom"
        plan.save(path)
        return path.read_bytes()


def take_apart(content: bytes) -> tuple[dict[str, Any], bytes]:
    """The header as JSON, and the tensor bytes."""
    (size,) = struct.unpack("<Q", content[:8])
    return json.loads(content[8 : 8 + size]), content[8 + size :]


def put_together(header: Any, data: bytes) -> bytes:
    """A file with this header: a JSON value, text, or raw bytes."""
    raw = header if isinstance(header, bytes) else (header if isinstance(header, str) else json.dumps(header)).encode()
    return struct.pack("<Q", len(raw)) + raw + data


def sealed(document: Any, plan: Plan) -> bytes:
    """A file that holds `document` for a manifest, and the digest that goes with it: only its meaning can be wrong."""
    text = document if isinstance(document, str) else canonical(document)
    header, data = take_apart(content_of(plan))
    header["__metadata__"] = {"manifest": text, "digest": content_digest(text, plan.tensors)}
    return put_together(header, data)


def canonical(document: Any) -> str:
    """JSON as the manifest writes it."""
    return json.dumps(document, sort_keys=True, separators=(",", ":"))
