"""Linear maps as the device will run them: int8 weights, and maps that follow one another joined into one step.

Within a chain the values are plain integers that nobody rescales, so the scale of one map's channels goes into the
next map's weights before those are quantised.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from slalom.importer.graph import FloatGraph, Floats, Linear, Node
from slalom.importer.options import CompileOptions
from slalom.importer.quantise import bits_within, quantise_weight
from slalom.plan.shapes import weight_bound
from slalom.plan.steps import Convolution, LinearMap


@dataclass(frozen=True)
class Chain:
    """Maps in order and their weights by tensor name: real = input scale * integer * scales + bias, per channel.

    `bound`: the largest output for inputs of magnitude one.
    """

    maps: tuple[LinearMap, ...]
    weights: Mapping[str, NDArray[np.int8]]
    scales: Floats
    bias: Floats
    bound: int


def form_chains(graph: FloatGraph, options: CompileOptions) -> dict[str, Chain]:
    """The chain of every linear node that remains; joined nodes are removed from the graph, the last one stays."""
    chains: dict[str, Chain] = {}
    readers = graph.reader_counts()
    for node in graph:
        if not isinstance(node.operation, Linear):
            continue
        before = chains.get(node.sources[0])
        joined = None
        if before is not None and readers[node.sources[0]] == 1:
            joined = _extend(before, node.operation, options)
        if joined is None:
            chains[node.name] = _single(node.operation, options)
            continue
        chains[node.name] = joined
        _merge(graph, graph.nodes[node.sources[0]], node)
        del chains[node.sources[0]]
    return chains


def _single(linear: Linear, options: CompileOptions) -> Chain:
    integers, scales = quantise_weight(linear.weight, options.weight_limit)
    return _proved((_named(linear),), {_tensor(linear): integers}, scales, linear.bias)


def _extend(before: Chain, linear: Linear, options: CompileOptions) -> Chain | None:
    """The chain with one more map, or None where they must stay apart.

    A bias in the middle is a constant image, which the next map takes to a constant only without padding. And the
    bound of a chain is the product of its maps' bounds: where it leaves the first activation few bits, two exchanges
    that keep the accuracy are better than one.
    """
    if before.bias.any() and not linear.is_local:
        return None
    scaled = (linear.weight * _along_inputs(linear, before.scales)).astype(np.float32)
    integers, scales = quantise_weight(scaled, options.weight_limit)
    bias = linear.bias + _carried(linear, before.bias)
    weights = {**before.weights, _tensor(linear): integers}
    chain = _proved((*before.maps, _named(linear)), weights, scales, bias)
    return chain if bits_within(chain.bound) >= options.minimum_chain_bits else None


def _proved(
    maps: tuple[LinearMap, ...], weights: Mapping[str, NDArray[np.int8]], scales: Floats, bias: Floats
) -> Chain:
    return Chain(maps, weights, scales, bias, weight_bound(maps, weights))


def _along_inputs(linear: Linear, entries: Floats) -> Floats:
    """One entry per input channel, laid over the weight's (input, output) axes: group by group."""
    groups = linear.linear_map.groups if isinstance(linear.linear_map, Convolution) else 1
    outputs = linear.weight.shape[-1]
    return np.repeat(entries.reshape(groups, -1).T, outputs // groups, axis=1)


def _carried(linear: Linear, bias: Floats) -> Floats:
    """What the map makes of a constant; zero for a constant of zero."""
    if not bias.any():
        return np.zeros_like(linear.bias)
    carried: Floats = (linear.weight * _along_inputs(linear, bias)).reshape(-1, linear.weight.shape[-1]).sum(axis=0)
    return carried


def _merge(graph: FloatGraph, before: Node, node: Node) -> None:
    """The node reads what the node before it read, which goes."""
    graph.put(replace(node, sources=before.sources))
    del graph.nodes[before.name]


def _named(linear: Linear) -> LinearMap:
    return replace(linear.linear_map, weight=_tensor(linear))


def _tensor(linear: Linear) -> str:
    return f"{linear.tensor}.weight"
