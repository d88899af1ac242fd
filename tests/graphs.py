"""Small networks built by hand, every kind of step among them, with weights that are the same on every run.

Each function returns (graph, tensors). Bounds are true range proofs, and scales let every value use a fair part of
its range without always saturating.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from slalom.plan.steps import (
    Activation,
    Add,
    Apply,
    Concatenate,
    Function,
    Graph,
    Layout,
    Multiply,
    Output,
    Pad,
    Permute,
    Real,
    Reduction,
    Reshape,
    Slice,
    Softmax,
    Window,
)
from tests.graph_builder import Builder, exact_scale, windows

Tensors = dict[str, NDArray[Any]]


def every_step_graph() -> tuple[Graph, Tensors]:
    """Every kind of step, map, operation, function, reduction and layout; two outputs: (5, 5, 4) image and 7 logits."""
    b = Builder("every-step", (9, 7, 3), Layout.CHANNELS_FIRST, seed=1, bits=12)
    b.linear("stem", "image", b.convolution("stem", (3, 3), 3, 8, stride=(2, 1), padding=(1, 1, 1, 1)))
    b.pointwise("stem_out", "stem", Apply(Function.RELU), bits=11)
    b.pool("maximum", "stem_out", Reduction.MAXIMUM, windows(5, 3, 1, 1), windows(7, 2, 2, 0))
    b.linear(
        "separable",
        "maximum",
        b.convolution("depthwise", (3, 2), 8, 8, padding=(2, 1, 1, 0), dilation=(1, 1), groups=8),
        b.convolution("dilated", (2, 2), 8, 12, padding=(1, 0, 0, 2), dilation=(1, 2), groups=2),
    )
    b.pointwise("separable_out", "separable", Apply(Function.HARD_SWISH))
    every_function(b, "separable_out")
    b.pool("mean", "functions", Reduction.SUM, (Window(0, 6),), (Window(0, 3),))
    b.pointwise("squeezed", "mean", scale=1 / 18)
    b.linear("excite", "squeezed", b.dense("excite", 12, 12))
    b.pointwise("gate", "excite", Apply(Function.HARD_SIGMOID))
    b.pointwise("gated", "functions", Multiply("gate"), Add("separable_out"))
    b.linear("project", "gated", b.convolution("project", (1, 1), 12, 4))
    b.pointwise("projected", "project", Apply(Function.LEAKY_RELU, 0.125), like="gated")
    b.add(Concatenate("joined", ("gated", "projected"), 2, b.like("gated", (6, 3, 16))))
    b.add(Slice("cut", "joined", (Window(1, 6, 2), Window(0, 3), Window(3, 16, 3)), b.like("gated", (3, 3, 5))))
    b.add(Pad("padded", "cut", (1, 0, 0), (1, 2, 0), b.like("gated", (5, 5, 5))))
    b.linear("paint", "padded", b.convolution("paint", (2, 2), 5, 4, padding=(0, 1, 1, 0)))
    b.pointwise("picture", "paint", real=True)
    b.add(Permute("turned", "padded", (2, 0, 1), b.like("gated", (5, 5, 5))))
    b.add(Reshape("tokens", "turned", b.like("gated", (5, 25))))
    b.linear("attend", "tokens", b.dense("attend", 25, 6))
    b.pointwise("scores", "attend")
    b.add(Softmax("weights", "scores", False, Activation((5, 6), exact_scale(1 / 2047), 12)))
    b.add(Reshape("flat", "weights", b.like("weights", (30,))))
    b.linear("classify", "flat", b.dense("classify", 30, 7))
    b.pointwise("logits", "classify", bits=15)
    b.add(Softmax("log_probabilities", "logits", True, Real((7,))))
    return b.graph(Output("picture", Layout.CHANNELS_FIRST), Output("log_probabilities", Layout.PLAIN))


def conv_chain_graph() -> tuple[Graph, Tensors]:
    """Depthwise then pointwise convolutions as one linear step, without padding; channels-last input; one output."""
    b = Builder("conv-chain", (7, 6, 2), Layout.PLAIN, seed=2, bits=5)
    b.linear(
        "chain",
        "image",
        b.convolution("first", (3, 3), 2, 4, groups=2),
        b.convolution("second", (1, 1), 4, 3),
        b.convolution("third", (2, 1), 3, 2, stride=(2, 2)),
    )
    b.pointwise("output", "chain", real=True)
    return b.graph(Output("output", Layout.PLAIN))


def residual_graph() -> tuple[Graph, Tensors]:
    """Two 3x3 convolutions with a shortcut around them, pooled to classes."""
    b = Builder("residual", (6, 6, 3), Layout.CHANNELS_FIRST, seed=3, bits=12)
    b.linear("conv1", "image", b.convolution("conv1", (3, 3), 3, 4, padding=(1, 1, 1, 1)))
    b.pointwise("block", "conv1", Apply(Function.RELU))
    b.linear("conv2", "block", b.convolution("conv2", (3, 3), 4, 4, padding=(1, 1, 1, 1)))
    b.pointwise("middle", "conv2", Apply(Function.RELU6))
    b.linear("conv3", "middle", b.convolution("conv3", (3, 3), 4, 4, padding=(1, 1, 1, 1)))
    b.pointwise("joined", "conv3", Add("block"), Apply(Function.RELU))
    b.pool("mean", "joined", Reduction.SUM, (Window(0, 6),), (Window(0, 6),))
    b.pointwise("features", "mean", scale=1 / 36)
    b.add(Reshape("flat", "features", b.like("features", (4,))))
    b.linear("fc", "flat", b.dense("fc", 4, 5))
    b.pointwise("logits", "fc", real=True)
    return b.graph(Output("logits", Layout.PLAIN))


def depthwise_graph() -> tuple[Graph, Tensors]:
    """A strided stem, a depthwise and a pointwise step (each checked on its own), and a dense head."""
    b = Builder("depthwise", (8, 8, 3), Layout.CHANNELS_FIRST, seed=4, bits=12)
    b.linear("stem", "image", b.convolution("stem", (3, 3), 3, 6, stride=(2, 2), padding=(0, 1, 0, 1)))
    b.pointwise("stem_out", "stem", Apply(Function.RELU6))
    b.linear("depthwise", "stem_out", b.convolution("depthwise", (3, 3), 6, 6, padding=(1, 1, 1, 1), groups=6))
    b.pointwise("depthwise_out", "depthwise", Apply(Function.RELU6))
    b.linear("pointwise", "depthwise_out", b.convolution("pointwise", (1, 1), 6, 8))
    b.pointwise("pointwise_out", "pointwise", Apply(Function.RELU6))
    b.add(Reshape("flat", "pointwise_out", b.like("pointwise_out", (128,))))
    b.linear("fc", "flat", b.dense("fc", 128, 10))
    b.pointwise("logits", "fc", real=True)
    return b.graph(Output("logits", Layout.PLAIN))


def dense_graph() -> tuple[Graph, Tensors]:
    """Two dense layers on a vector: every spatial size is 1."""
    b = Builder("dense", (13,), Layout.PLAIN, seed=5, bits=12)
    b.linear("fc1", "image", b.dense("fc1", 13, 9))
    b.pointwise("hidden", "fc1", Apply(Function.RELU))
    b.linear("fc2", "hidden", b.dense("fc2", 9, 4))
    b.pointwise("logits", "fc2", real=True)
    return b.graph(Output("logits", Layout.PLAIN))


def sequence_dense_graph() -> tuple[Graph, Tensors]:
    """Two dense layers on the last axis of a sequence (5 tokens of 6 features), with a shortcut."""
    b = Builder("sequence-dense", (5, 6), Layout.PLAIN, seed=6, bits=12)
    b.linear("fc1", "image", b.dense("fc1", 6, 11))
    b.pointwise("hidden", "fc1", Apply(Function.GELU))
    b.linear("fc2", "hidden", b.dense("fc2", 11, 6))
    b.pointwise("joined", "fc2", Add("image"))
    b.linear("head", "joined", b.dense("head", 6, 3))
    b.pointwise("output", "head", real=True)
    return b.graph(Output("output", Layout.PLAIN))


ALL_GRAPHS = (
    every_step_graph,
    conv_chain_graph,
    residual_graph,
    depthwise_graph,
    dense_graph,
    sequence_dense_graph,
)


def images(graph: Graph, batch: int, seed: int) -> NDArray[np.float32]:
    """Normal float32 images [batch, *shape] in the user's layout; a few elements lie beyond the input's limit."""
    shape = graph.input.output.shape
    x = np.random.default_rng(seed).standard_normal((batch, *shape)).astype(np.float32)
    x.reshape(-1)[:: max(7, x.size // 8)] *= np.float32(5)
    return np.ascontiguousarray(x.transpose(0, 3, 1, 2)) if graph.input.layout is Layout.CHANNELS_FIRST else x


def every_function(b: Builder, source: str) -> None:
    """One pointwise step per function, each fed by the one before; the last is named `functions`."""
    for function in Function:
        name = "functions" if function is list(Function)[-1] else f"after_{function}"
        parameter = 0.25 if function is Function.LEAKY_RELU else 0.0
        b.pointwise(name, source, Apply(function, parameter), scale=2.0, bias=0.5)
        source = name
