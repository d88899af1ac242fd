"""Rewrites of the float graph that change no number: fewer steps, and linear steps that carry what they can.

pads        into the convolution that reads them
affines     into the linear map, or the affine, before them
flattening  into the rows of the dense layer after it
reshapes    behind elementwise operations, so that those fuse with what comes before
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from slalom.importer.graph import Add, Affine, Apply, FloatGraph, Floats, Linear, Multiply, Node, Pad, Permute, Reshape
from slalom.plan.steps import Convolution, Dense


def fold_graph(graph: FloatGraph) -> None:
    """All folds, in place. Every result equals the graph before, but for float64 roundings."""
    graph.drop_unread()
    sink_reshapes(graph)
    fold_pads(graph)
    fold_affines(graph)
    fold_flattening(graph)
    graph.drop_unread()


def fold_pads(graph: FloatGraph) -> None:
    """A pad of rows and columns becomes the padding of each convolution that reads it."""
    for node in graph:
        operation = node.operation
        if not isinstance(operation, Linear) or not isinstance(operation.linear_map, Convolution):
            continue
        source = graph.nodes[node.sources[0]]
        if not isinstance(source.operation, Pad) or source.operation.before[2] or source.operation.after[2]:
            continue
        before, after = source.operation.before, source.operation.after
        top, bottom, left, right = operation.linear_map.padding
        padding = (top + before[0], bottom + after[0], left + before[1], right + after[1])
        padded = replace(operation, linear_map=replace(operation.linear_map, padding=padding))
        graph.put(replace(node, operation=padded, sources=source.sources))


def fold_affines(graph: FloatGraph) -> None:
    """A per-channel affine disappears in the linear map or affine that it alone reads."""
    readers = graph.reader_counts()
    for node in graph:
        if not isinstance(node.operation, Affine):
            continue
        source = graph.nodes[node.sources[0]]
        folded = _absorb(source, node.operation) if readers[source.name] == 1 else None
        if folded is not None:
            observed = source.observed if node.observed is None else node.observed
            gain = node.gain * source.gain if node.observed is None else node.gain
            graph.put(replace(source, operation=folded, observed=observed, gain=gain))
            graph.bypass(node.name, source.name)
            readers[source.name] = readers[node.name]


def fold_flattening(graph: FloatGraph) -> None:
    """A dense layer that reads a permuted, flattened item takes it unpermuted, its rows in that order."""
    for node in graph:
        operation = node.operation
        if not isinstance(operation, Linear) or not isinstance(operation.linear_map, Dense) or len(node.shape) != 1:
            continue
        flat = graph.nodes[node.sources[0]]
        permuted = graph.nodes[flat.sources[0]] if isinstance(flat.operation, Reshape) else flat
        if not isinstance(permuted.operation, Permute):
            continue
        before = graph.nodes[permuted.sources[0]]
        # Row r read element places[r] of the unpermuted item, so element e is read by row argsort(places)[e].
        places = np.arange(math.prod(before.shape)).reshape(before.shape).transpose(permuted.operation.axes).reshape(-1)
        weight = operation.weight[np.argsort(places)]
        name = f"{node.name}:flatten"
        graph.nodes[name] = Node(name, Reshape(), (before.name,), flat.shape, None)
        graph.put(replace(node, operation=replace(operation, weight=weight), sources=(name,)))
        graph.sort()


def sink_reshapes(graph: FloatGraph) -> None:
    """reshape, then an elementwise operation, becomes that operation, then the reshape: entries go by flat index."""
    readers = graph.reader_counts()
    for node in graph:
        if not isinstance(node.operation, Affine | Apply | Add | Multiply):
            continue
        main = graph.nodes[node.sources[0]]
        if not isinstance(main.operation, Reshape) or readers[main.name] != 1:
            continue
        before = graph.nodes[main.sources[0]]
        if readers[before.name] != 1:
            continue
        inner = replace(node, name=main.name, sources=(before.name, *node.sources[1:]), shape=before.shape)
        outer = Node(node.name, Reshape(), (main.name,), node.shape)
        # The two trade places: the operation takes the reshape's name, its operands are already there before `node`.
        graph.put(replace(inner, name=main.name))
        graph.put(outer)
        graph.sort()


def compose(first: Affine, second: Affine) -> Affine | None:
    """Both affines as one, or None where neither length repeats into the other."""
    length = max(first.multiplier.size, second.multiplier.size)
    if length % first.multiplier.size or length % second.multiplier.size:
        return None
    multiplier = _repeat(second.multiplier, length)
    bias = _repeat(first.bias, length) * multiplier + _repeat(second.bias, length)
    return Affine(_repeat(first.multiplier, length) * multiplier, bias)


def _absorb(source: Node, affine: Affine) -> Linear | Affine | None:
    """The source's operation followed by the affine, or None where it cannot carry it."""
    operation = source.operation
    if isinstance(operation, Affine):
        return compose(operation, affine)
    if isinstance(operation, Linear):
        channels = operation.weight.shape[-1]
        if affine.multiplier.size not in (1, channels):
            return None
        multiplier, bias = _repeat(affine.multiplier, channels), _repeat(affine.bias, channels)
        return replace(
            operation,
            weight=(operation.weight * multiplier).astype(np.float32),
            bias=operation.bias * multiplier + bias,
        )
    return None


def _repeat(entries: Floats, length: int) -> Floats:
    return np.tile(entries, length // entries.size)
