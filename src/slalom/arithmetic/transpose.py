"""Probe images t = W^T s in F_p, p = 2^51 - 129: the transpose of the linear maps, exact.

For every map and every integer x: <W x, s> = <x, t> mod p, where W x is taken over the integers.
A field element is two limbs, s = low + 2^26 * high; each limb goes through float64 matrix products that stay below
2^53, so that every sum is exact in any order, and the limbs meet again in F_p.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from slalom import _native
from slalom.arithmetic import field
from slalom.arithmetic.dispatch import Dispatch, Isa
from slalom.arithmetic.field import Elements
from slalom.arithmetic.linear import tap_slices
from slalom.arithmetic.memory import aligned_empty
from slalom.errors import ApiMisuse, ModelError
from slalom.plan.shapes import Geometry, chain_geometries
from slalom.plan.steps import LinearMap, Shape

_LIMB_BITS = 26
_LIMB_MASK = np.uint64(2**_LIMB_BITS - 1)
# |limb| < 2^26, |w| <= 2^7, 2^19 terms -> every partial sum < 2^52
_EXACT_TERMS = 2**19
_NATIVE_TAPS = 4096  # linear.hpp: field_outer
_BLOCK_ELEMENTS = 2**18  # 2 MiB of float64 weights at a time: they stay in cache


def transpose_maps(
    maps: Sequence[LinearMap], weights: Mapping[str, npt.NDArray[np.int8]], input_shape: Shape, probe: Elements
) -> Elements:
    """The probe image of a chain: uint64 [*input_shape] in 0..p-1.

    `probe` is uint64 [*output shape of the last map] with elements in 0..p-1.
    Raises ModelError where the shapes do not fit or a kernel has too many taps, ApiMisuse for another probe.
    """
    geometries = chain_geometries(maps, weights, input_shape)
    if probe.dtype != np.uint64 or probe.shape != geometries[-1].output_shape:
        raise ApiMisuse(
            f"a probe of this step is uint64 {geometries[-1].output_shape}, not {probe.dtype} {probe.shape}"
        )
    image = probe
    for linear_map, geometry in zip(reversed(maps), reversed(geometries), strict=True):
        image = _transpose_map(geometry, weights[linear_map.weight], image)
    return image.reshape(input_shape)


def _transpose_map(geometry: Geometry, weight: npt.NDArray[np.int8], probe: Elements) -> Elements:
    kernel = weight.reshape(*geometry.kernel, geometry.group_inputs, geometry.groups, geometry.group_outputs)
    limbs = _split_limbs(probe.reshape(*geometry.output_image[:2], geometry.groups, geometry.group_outputs))
    height, width, channels = geometry.input_image
    top, bottom, left, right = geometry.padding
    total = np.zeros(geometry.input_image, dtype=np.uint64)
    for outputs in _output_blocks(geometry):
        padded = np.zeros((2, height + top + bottom, width + left + right, channels))
        for a, b, taken in tap_slices(geometry):
            for inputs, part in _tap_images(geometry, limbs[..., outputs], kernel[a, b][..., outputs]):
                padded[:, *taken, inputs] += part
        image = padded[:, top : top + height, left : left + width]
        total = (total + _join_limbs(image[0].astype(np.int64), image[1].astype(np.int64))) % np.uint64(field.P)
    return total


def transpose_rank_one(
    maps: Sequence[LinearMap],
    weights: Mapping[str, npt.NDArray[np.int8]],
    input_shape: Shape,
    spatial: Elements,
    channel: Elements,
    dispatch: Dispatch | None = None,
) -> Elements:
    """The probe image of the rank-one probe s[pixel, o] = spatial[pixel] * channel[o]: uint64 [*input_shape].

    `spatial` is uint64 [output pixels] (rows, for a dense map) and `channel` uint64 [output channels], both with
    elements in 0..p-1. Equal to `transpose_maps` of that probe, but the last map costs taps * inputs field
    products in place of its multiplications: its weights are contracted with `channel` first. `dispatch` says which
    kernels make those products; NumPy without it. Raises as `transpose_maps`.
    """
    geometry = chain_geometries(maps, weights, input_shape)[-1]
    if spatial.shape != (geometry.pixels,) or channel.shape != (geometry.output_image[2],):
        expected = f"{geometry.pixels} pixels and {geometry.output_image[2]} channels"
        raise ApiMisuse(f"a rank-one probe of this step has {expected}, not {spatial.shape} and {channel.shape}")
    kernel = _contract_channels(geometry, weights[maps[-1].weight], channel)
    image = _outer_image(geometry, spatial, kernel, dispatch)
    if len(maps) == 1:
        return image.reshape(input_shape)
    before = chain_geometries(maps[:-1], weights, input_shape)[-1].output_shape
    return transpose_maps(maps[:-1], weights, input_shape, image.reshape(before))


def _contract_channels(geometry: Geometry, weight: npt.NDArray[np.int8], channel: Elements) -> Elements:
    """K[a, b, c] = sum over the outputs o of c's group of channel[o] * weight[a, b, c, o], mod p."""
    kernel = weight.reshape(*geometry.kernel, geometry.group_inputs, geometry.groups, geometry.group_outputs)
    limbs = _split_limbs(channel.reshape(1, 1, geometry.groups, geometry.group_outputs))
    total = np.zeros((*geometry.kernel, geometry.input_image[2]), dtype=np.uint64)
    for outputs in _output_blocks(geometry):
        for a, b, _ in tap_slices(geometry):
            for inputs, part in _tap_images(geometry, limbs[..., outputs], kernel[a, b][..., outputs]):
                low, high = part.reshape(2, -1).astype(np.int64)
                total[a, b, inputs] = (total[a, b, inputs] + _join_limbs(low, high)) % np.uint64(field.P)
    return total


def _outer_image(geometry: Geometry, spatial: Elements, kernel: Elements, dispatch: Dispatch | None) -> Elements:
    """t[p, c] = sum over (tap, output pixel q that reads p by tap) of spatial[q] * kernel[tap, c], mod p."""
    if dispatch is None or dispatch.isa is Isa.NUMPY or geometry.taps > _NATIVE_TAPS:
        return _outer_reference(geometry, spatial, kernel)
    image = aligned_empty(geometry.input_image, np.uint64)
    words, factors, code = geometry.words(), np.ascontiguousarray(spatial), dispatch.isa.code
    dispatch.run_ranges(
        geometry.input_image[0],
        1,
        lambda begin, end: _native.field_outer(code, words, factors, kernel, image, begin, end),
    )
    return image


def _outer_reference(geometry: Geometry, spatial: Elements, kernel: Elements) -> Elements:
    height, width, channels = geometry.input_image
    top, bottom, left, right = geometry.padding
    padded = np.zeros((height + top + bottom, width + left + right, channels), dtype=np.uint64)
    factors = spatial.reshape(*geometry.output_image[:2], 1)
    for a, b, taken in tap_slices(geometry):
        padded[taken] = field.add(padded[taken], field.multiply(factors, kernel[a, b]))
    return padded[top : top + height, left : left + width]


def _output_blocks(geometry: Geometry) -> Iterator[slice]:
    """Slices of a group's output channels; an input element meets at most taps * block terms, so sums stay exact."""
    block = _EXACT_TERMS // geometry.taps
    if block == 0:
        raise ModelError(f"a kernel of {geometry.taps} taps is more than {_EXACT_TERMS}")
    for start in range(0, geometry.group_outputs, block):
        yield slice(start, start + block)


def _tap_images(
    geometry: Geometry, limbs: npt.NDArray[np.float64], kernel: npt.NDArray[np.int8]
) -> Iterator[tuple[slice, npt.NDArray[np.float64]]]:
    """One tap's share of the padded image: pairs (slice of input channels, float64 [2, OH, OW, those channels]).

    limbs is [2, OH, OW, groups, outputs], kernel [inputs, groups, outputs].
    """
    shape = limbs.shape[:3]
    if geometry.group_inputs == 1:
        yield slice(None), np.einsum("...go,go->...g", limbs, kernel[0].astype(np.float64))
        return
    block = max(1, _BLOCK_ELEMENTS // limbs.shape[-1])
    for group in range(geometry.groups):
        rows = limbs[..., group, :].reshape(-1, limbs.shape[-1])
        for start in range(0, geometry.group_inputs, block):
            part = kernel[start : start + block, group].astype(np.float64)
            first = group * geometry.group_inputs + start
            yield slice(first, first + len(part)), (rows @ part.T).reshape(*shape, len(part))


def _split_limbs(elements: Elements) -> npt.NDArray[np.float64]:
    """[2, ...] float64: the low 26 bits and the high 25."""
    return np.stack([elements & _LIMB_MASK, elements >> np.uint64(_LIMB_BITS)]).astype(np.float64)


def _join_limbs(low: npt.NDArray[np.int64], high: npt.NDArray[np.int64]) -> Elements:
    """low + 2^26 * high mod p, for any int64 limbs."""
    high = high % field.P
    # 2^51 = 129 mod p: high * 2^26 = (high >> 25) * 2^51 + (high mod 2^25) * 2^26; < 2^26 * 2^8 + 2^51
    shifted = (high >> 25) * 129 + ((high & (2**25 - 1)) << 26)
    return ((low % field.P + shifted) % field.P).astype(np.uint64)
