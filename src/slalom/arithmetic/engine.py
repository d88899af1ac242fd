"""The trusted engine: the plan's linear maps, exact mod 2**32, on the processor's dot products of int16 or of bytes.

It makes mask images and the `enclave` baseline. Weights are packed once, as int8; sources are int16 activations or
32-bit words, which are taken as two int16 halves, or apart into bytes where the processor has tiles (decision 0024).
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from slalom import _native
from slalom.arithmetic.dispatch import Dispatch, Isa, available_isas
from slalom.arithmetic.linear import Words, apply_map, check_words
from slalom.arithmetic.memory import aligned_empty
from slalom.errors import ApiMisuse, DeviceError
from slalom.plan.shapes import Geometry, chain_geometries
from slalom.plan.steps import Convolution, Dense, LinearMap, Shape

_TILE_ROWS = 12
_TILE_PANELS = 2
_TILES_ROWS = 32  # linear_tiles.inl


@dataclass(frozen=True, eq=False)
class PreparedMap:
    """One map and its weights as the engine reads them: int8, the tensor's own order or panels of 16 outputs."""

    linear_map: LinearMap
    geometry: Geometry
    geometry_words: npt.NDArray[np.int64]
    weight: npt.NDArray[np.int8]

    @property
    def depthwise(self) -> bool:
        """One input channel per group: a kernel of its own."""
        return self.geometry.groups > 1 and self.geometry.group_inputs == 1


@dataclass(frozen=True, eq=False)
class PreparedMaps:
    """A chain that `LinearEngine.apply` runs on items of `input_shape`, packed for the kernels of `isa`."""

    isa: Isa
    maps: tuple[PreparedMap, ...]
    input_shape: Shape
    output_shape: Shape


class LinearEngine:
    """Runs chains of linear maps. Safe to share between threads; holds no data of its own.

    `isa` names the kernels, those of the dispatch by default. Construction runs `self_test`, and so raises DeviceError
    on a processor whose kernels are not exact; `make_engine` then takes slower ones.
    """

    def __init__(self, dispatch: Dispatch, isa: Isa | None = None) -> None:
        self._dispatch = dispatch
        self.isa = isa or dispatch.isa
        self.self_test()

    def prepare(
        self, maps: Sequence[LinearMap], weights: Mapping[str, npt.NDArray[np.int8]], input_shape: Shape
    ) -> PreparedMaps:
        """Packs a copy of the weights of a chain. Raises ModelError where the shapes do not fit."""
        geometries = chain_geometries(maps, weights, input_shape)
        prepared = tuple(
            self._prepare_map(linear_map, geometry, weights[linear_map.weight])
            for linear_map, geometry in zip(maps, geometries, strict=True)
        )
        return PreparedMaps(self.isa, prepared, input_shape, geometries[-1].output_shape)

    def apply(
        self, prepared: PreparedMaps, x: Words, out: npt.NDArray[np.int32] | None = None
    ) -> npt.NDArray[np.int32]:
        """The chain on a batch: int16 or int32 [B, *input shape] gives int32 [B, *output shape], exact mod 2**32.

        `out`: where the result goes, of its shape, C-contiguous.
        Raises ApiMisuse for other shapes and dtypes, and for a chain that was prepared for other kernels.
        """
        check_words(x)
        if prepared.isa is not self.isa:
            raise ApiMisuse(f"a chain was prepared for {prepared.isa}, and this engine has the kernels of {self.isa}")
        if out is not None and not (
            out.shape == (len(x), *prepared.output_shape) and out.dtype == np.int32 and out.flags.c_contiguous
        ):
            raise ApiMisuse("a chain was given another array for its result")
        if x.shape[1:] != prepared.input_shape:
            raise ApiMisuse(f"a chain for items of {prepared.input_shape} was given {x.shape[1:]}")
        y: Words = np.ascontiguousarray(x)
        for index, prepared_map in enumerate(prepared.maps):
            y = self._apply_map(prepared_map, y, out if index == len(prepared.maps) - 1 else None)
        return y.astype(np.int32, copy=False)

    def self_test(self) -> None:
        """Compares the kernels with the reference on extreme values. Raises DeviceError on the first difference."""
        if self.isa is Isa.NUMPY:
            return
        for linear_map, weight, x in _extreme_cases():
            prepared = self.prepare([linear_map], {linear_map.weight: weight}, x.shape[1:])
            if not np.array_equal(self.apply(prepared, x), apply_map(linear_map, weight, x)):
                message = f"this processor's {self.isa} kernels are not exact"
                raise DeviceError(message, hint="choose another instruction set")

    def _prepare_map(self, linear_map: LinearMap, geometry: Geometry, weight: npt.NDArray[np.int8]) -> PreparedMap:
        if weight.dtype != np.int8:
            raise ApiMisuse(f"{linear_map.weight}: weights are int8, not {weight.dtype}")
        prepared = PreparedMap(linear_map, geometry, geometry.words(), np.array(weight, order="C"))
        if self.isa is Isa.NUMPY or prepared.depthwise:
            return prepared
        panels = pack_quads(geometry, weight) if self.isa.has_tiles else pack_panels(geometry, weight)
        return PreparedMap(linear_map, geometry, prepared.geometry_words, panels)

    def _apply_map(
        self, prepared: PreparedMap, x: Words, out: npt.NDArray[np.int32] | None = None
    ) -> npt.NDArray[np.int32]:
        y = aligned_empty((len(x), *prepared.geometry.output_shape), np.int32) if out is None else out
        if self.isa is Isa.NUMPY:
            np.copyto(y, apply_map(prepared.linear_map, prepared.weight, x))
            return y
        if prepared.depthwise:
            self._run_depthwise(prepared, x, y)
        else:
            self._run_gemm(prepared, x, y)
        return y

    def _run_depthwise(self, prepared: PreparedMap, x: Words, y: npt.NDArray[np.int32]) -> None:
        pixels, threads = len(x) * prepared.geometry.pixels, self._dispatch.threads
        words, team = prepared.geometry_words, self._dispatch.team
        _native.depthwise(self.isa.code, team, words, x, prepared.weight, y, pixels, threads)

    def _run_gemm(self, prepared: PreparedMap, x: Words, y: npt.NDArray[np.int32]) -> None:
        """Cuts the output pixels among the threads, or the panels where there are too few pixels."""
        panels, threads = prepared.weight, self._dispatch.threads
        tile_rows = _TILES_ROWS if self.isa.has_tiles else _TILE_ROWS
        pixels, panel_count = len(x) * prepared.geometry.pixels, math.prod(panels.shape[:2])
        by_rows = pixels >= 2 * tile_rows * threads or panel_count < _TILE_PANELS * threads
        work = (pixels, panel_count, tile_rows if by_rows else _TILE_PANELS, by_rows)
        scratch = np.empty(threads * _native.SCRATCH_ELEMENTS, dtype=np.int16)
        team, words = self._dispatch.team, prepared.geometry_words
        _native.gemm(self.isa.code, team, words, x, panels, y, scratch, work)


def make_engine(dispatch: Dispatch) -> LinearEngine:
    """The engine on the dispatch's kernels, or on the fastest slower ones that pass their test: AVX-512's for tiles
    that are not exact, and so on down to NumPy."""
    choices = available_isas()[1:]
    slower = choices[: choices.index(dispatch.isa)] if dispatch.isa in choices else choices
    for isa in (dispatch.isa, *reversed(slower)):
        with contextlib.suppress(DeviceError):
            return LinearEngine(dispatch, isa)
    return LinearEngine(dispatch, Isa.NUMPY)


def pack_panels(geometry: Geometry, weight: npt.NDArray[np.int8]) -> npt.NDArray[np.int8]:
    """The weights as [groups, panels, pairs, 16, 2]: 16 outputs side by side, K in pairs (see linear.hpp).

    As many bytes as the weights, but for zeros that fill the last panel and the last pair.
    """
    return _pack(geometry, weight, 2, 2)


def pack_quads(geometry: Geometry, weight: npt.NDArray[np.int8]) -> npt.NDArray[np.int8]:
    """The weights as [groups, panels, quads, 16, 4]: as `pack_panels`, for tiles. K is filled to 64 with zeros."""
    return _pack(geometry, weight, 4, _native.TILE_DEPTH)


def _pack(geometry: Geometry, weight: npt.NDArray[np.int8], lanes: int, multiple: int) -> npt.NDArray[np.int8]:
    depth, width = geometry.taps * geometry.group_inputs, _native.PANEL_WIDTH
    panels, runs = -(-geometry.group_outputs // width), -(-depth // multiple) * multiple // lanes
    packed = np.zeros((geometry.groups, panels, runs, width, lanes), dtype=np.int8)
    columns = weight.reshape(depth, geometry.groups, geometry.group_outputs)
    for panel in range(panels):
        part = columns[:, :, panel * width : (panel + 1) * width]
        for lane in range(lanes):
            rows = part[lane::lanes]
            packed[:, panel, : len(rows), : part.shape[2], lane] = rows.transpose(1, 0, 2)
    return packed


def _extreme_cases() -> list[tuple[LinearMap, npt.NDArray[np.int8], Words]]:
    """Maps over every kernel, with the values at which halves, pairs and saturating instructions would show."""
    square = (1, 1, 1, 1)
    maps: list[tuple[LinearMap, Shape, Shape]] = [
        (Dense("dense"), (1029, 35), (14, 1029)),  # sums far beyond 2^31, K cut in blocks, odd K, a partial panel
        (Dense("dense"), (64, 48), (14, 64)),
        (Convolution("grouped", (2, 1), (1, 0, 0, 2), (1, 2), 3), (3, 2, 5, 51), (5, 6, 15)),
        (Convolution("image", (1, 1), square, (1, 1), 1), (3, 3, 17, 33), (5, 7, 17)),
        (Convolution("depthwise", (1, 1), square, (1, 1), 83), (3, 3, 1, 83), (4, 5, 83)),
        (Convolution("multiplier", (1, 2), square, (2, 1), 3), (3, 3, 1, 6), (5, 6, 3)),
    ]
    halves = np.array([-(2**15), 2**15 - 1, -16383, 16383, -1, 0, 1], dtype=np.int16)
    edges = [-(2**31), -(2**31) + 1, 2**31 - 1, 2**15, -(2**15) - 1, 65535, -65536, 0x7FFF8000, 16383, -1, 0, 1]
    words = np.array(edges, dtype=np.int32)
    rng = np.random.default_rng(0)  # which extreme stands where: no secret
    cases: list[tuple[LinearMap, npt.NDArray[np.int8], Words]] = []
    for linear_map, weight_shape, item in maps:
        weight = rng.choice(np.array([-127, 127, -126, 1, 0], dtype=np.int8), weight_shape)
        cases += [(linear_map, weight, rng.choice(values, (2, *item))) for values in (halves, words)]
        uniform = np.full(weight_shape, -127, dtype=np.int8)
        cases += [(linear_map, uniform, np.full((1, *item), values[0])) for values in (halves, words)]
    return cases
