"""Speed of the trusted linear engine on a few layers, beside NumPy's float64 product of the same matrices."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from slalom.arithmetic.dispatch import Dispatch
from slalom.arithmetic.engine import LinearEngine
from slalom.plan.shapes import Geometry, map_geometry, multiply_accumulates
from slalom.plan.steps import Convolution, Dense, LinearMap, Shape

REPEATS = 9


@dataclass(frozen=True)
class Layer:
    """One map, its weight's shape, an item's shape and how many items at a time."""

    name: str
    linear_map: LinearMap
    weight_shape: Shape
    input_shape: Shape
    batch: int


@dataclass(frozen=True)
class EngineRow:
    """One layer's speeds in 10**9 multiplications per second, padding counted, medians of the repeats.

    `activations` is for int16 sources, `words` for 32-bit ones (two products each). `float64` is the matrix product
    alone, on patches laid out beforehand, with as many threads as NumPy's BLAS takes.
    """

    layer: str
    isa: str
    threads: int
    activations: float
    words: float
    float64: float


def _convolution(kernel: int, groups: int = 1) -> Convolution:
    edge = kernel // 2
    return Convolution("weight", (1, 1), (edge, edge, edge, edge), (1, 1), groups)


LAYERS = (
    Layer("conv 1x1 480-112 at 14x14", _convolution(1), (1, 1, 480, 112), (14, 14, 480), 8),
    Layer("conv 3x3 64-64 at 56x56", _convolution(3), (3, 3, 64, 64), (56, 56, 64), 1),
    Layer("depthwise 3x3 96 at 112x112", _convolution(3, groups=96), (3, 3, 1, 96), (112, 112, 96), 1),
    Layer("dense 4096-1000", Dense("weight"), (4096, 1000), (4096,), 8),
)


def measure_engine(dispatch: Dispatch, layers: tuple[Layer, ...] = LAYERS) -> list[EngineRow]:
    """One row per layer, on random weights and sources. Takes a second or two."""
    engine = LinearEngine(dispatch)
    return [_measure_layer(engine, dispatch, layer) for layer in layers]


def _measure_layer(engine: LinearEngine, dispatch: Dispatch, layer: Layer) -> EngineRow:
    rng = np.random.default_rng(0)  # figures, not secrets
    weight = rng.integers(-127, 128, layer.weight_shape, dtype=np.int8)
    prepared = engine.prepare([layer.linear_map], {"weight": weight}, layer.input_shape)
    shape = (layer.batch, *layer.input_shape)
    activations = rng.integers(-2047, 2048, shape, dtype=np.int16)
    words = rng.integers(-(2**31), 2**31, shape).astype(np.int32)
    geometry = map_geometry(layer.linear_map, layer.weight_shape, layer.input_shape)
    left, right = _float_operands(geometry, weight, layer.batch, rng)
    count = layer.batch * multiply_accumulates(layer.linear_map, layer.weight_shape, layer.input_shape)
    return EngineRow(
        layer=layer.name,
        isa=str(dispatch.isa),
        threads=dispatch.threads,
        activations=_speed(count, lambda: engine.apply(prepared, activations)),
        words=_speed(count, lambda: engine.apply(prepared, words)),
        float64=_speed(count, lambda: left @ right),
    )


def _float_operands(
    geometry: Geometry, weight: npt.NDArray[np.int8], batch: int, rng: np.random.Generator
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """[groups, pixels, K] and [groups, K, outputs of a group]."""
    depth = geometry.taps * geometry.group_inputs
    patches = rng.random((geometry.groups, batch * geometry.pixels, depth))
    columns = weight.reshape(depth, geometry.groups, geometry.group_outputs).transpose(1, 0, 2)
    return patches, np.ascontiguousarray(columns, dtype=np.float64)


def _speed(count: int, work: Callable[[], object]) -> float:
    work()
    seconds = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return count / statistics.median(seconds) / 1e9
