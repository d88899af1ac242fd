"""The trusted pass over the elements of one step: read, unblind, dot, epilogue, dot, blind, each element once.

Enters: a claim of the device (or an activation), a mask image, probes, a program. Leaves: the activation, the
dot products for the check of this claim and of the next one, and the blinded words for the device. The pass computes
and never judges: comparing the dots is the checker's business.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slalom import _native
from slalom.arithmetic import field
from slalom.arithmetic.dispatch import Dispatch, Isa
from slalom.arithmetic.field import Elements
from slalom.arithmetic.memory import aligned_empty
from slalom.arithmetic.pieces import Passage, Streamed, StreamedClaim, StreamedWords, settle
from slalom.arithmetic.pointwise import (
    PreparedAdd,
    PreparedAffine,
    PreparedApply,
    PreparedMultiply,
    PreparedOperation,
    Program,
    run_program,
)
from slalom.arithmetic.pooling import Room, pool, pool_reference, window_words
from slalom.errors import ApiMisuse
from slalom.plan.flow import rows_follow, whole_rows
from slalom.plan.steps import Function, Pool, Reduction, Shape, Window

Words = NDArray[np.int32]
Values = NDArray[np.int16] | NDArray[np.float32]
Packed = NDArray[np.uint8]

MAXIMUM_PROBES = 64  # of one side of a pass, as in fused.hpp

_TILE_COUNT = 1024  # as in dots.inl
_RANGE_ELEMENTS = 2**16  # of all items together: some 20 microseconds, many times what handing it over takes
_RANGES_PER_THREAD = 4  # so that a thread that was held up does not hold up the rest
_STREAM_VALUES = 2**22  # the same size in int16: too large to be in the caches when it is read next
_POOLED_ELEMENTS = _STREAM_VALUES  # fewer are in the caches still when they are pooled after the pass
_IN_REGISTERS = (Isa.AVX512, Isa.AMX)  # which pool windows of 2x2 there, whatever their number
_STREAM_ELEMENTS = 2**21  # from here on the blinded words (8 MiB) are written past the caches: they are the device's
_MAXIMUM_OPERATIONS = 64  # of a program; as in fused.hpp
_INT16, _INT32, _UINT64, _FLOAT32 = (np.dtype(kind) for kind in (np.int16, np.int32, np.uint64, np.float32))
_UINT8 = np.dtype(np.uint8)
_SOURCES = (_INT32, _UINT8, _INT16)  # claims, packed claims, an activation
PACKED_SIZE = 3  # bytes of a packed claim
PACKED_LIMIT = 2**23  # |y| below it fits them
_FUNCTION_CODES = {function: code for code, function in enumerate(Function)}


@dataclass(frozen=True)
class Pooling:
    """A maximum pool of the activation [B, H, W, C], `shape` being (H, W, C): only the maxima are written.

    Its row windows take the rows one after another, each once: then a few rows of an activation suffice for a row of
    maxima, and stay in the cache until they are pooled.
    """

    step: Pool
    shape: Shape

    @property
    def count(self) -> int:
        """The maxima of one item."""
        return len(self.step.rows) * len(self.step.columns) * self.shape[2]

    @property
    def by_pairs(self) -> bool:
        """Whether the windows are 2x2 pixels side by side and cover the image."""
        height, width, _ = self.shape
        return self.step.rows == _pairs(height) and self.step.columns == _pairs(width)


def _pairs(extent: int) -> tuple[Window, ...]:
    return tuple(Window(start, start + 2) for start in range(0, extent, 2))


@dataclass(frozen=True, repr=False)  # a representation would show masks and probes
class PassInput:
    """What one pass reads; every array is C-contiguous, rows [B, M] are items.

    source: int32 claims, read exactly once (the device may still write to them), or an int16 activation; or claims
    packed to three bytes each, uint8 [B, M, 3], little-endian in two's complement, read once as well; or a claim of
    either kind that comes in pieces while the pass runs.
    mask_image: int32 [B, M] or None; y = claim - mask_image mod 2**32. Only for int32 sources.
    probes: for each round uint64 [M] in F_p. program: None lets an int16 activation pass unchanged.
    operands: int16 [B, P] by name. probe_images: uint64 [M] in F_p, one per (consumer, round) of the output.
    mask: int32 [B, M] or None; the blinded output is q + mask mod 2**32. kept: whether anybody reads the activation
    itself again, which else is dotted and blinded and never written. pooling: what the activation is pooled by, where
    nobody reads it but a pool.
    """

    source: NDArray[Any] | StreamedClaim
    mask_image: Words | None
    probes: tuple[Elements, ...]
    program: Program | None
    operands: Mapping[str, NDArray[np.int16]]
    probe_images: tuple[Elements, ...]
    mask: Words | None
    kept: bool = True
    pooling: Pooling | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """(B, M)"""
        if isinstance(self.source, StreamedClaim):
            return self.source.passage.batch, self.source.passage.count
        return self.source.shape[0], self.source.shape[1]


@dataclass(frozen=True, repr=False)
class PassOutput:
    """What one pass gives.

    values: int16 or float32 [B, M], or the maxima, int16 [B, outputs], or None where they were not to be kept.
    source_dots: uint64 [B, probes], <y, s> mod p. output_dots: uint64 [B, probe_images], <q, t> mod p. blinded: int32
    [B, M], q + mask mod 2**32, or None without a mask, and where they went in pieces.
    """

    values: Any
    source_dots: Elements
    output_dots: Elements
    blinded: Words | None


def run_pass(
    dispatch: Dispatch,
    given: PassInput,
    *,
    values_out: Values | None = None,
    blinded_out: Words | StreamedWords | None = None,
    scratch: Room = aligned_empty,
) -> PassOutput:
    """One pass over all elements; `values_out` and `blinded_out` receive the outputs where given.

    `scratch` gives memory that a pass which pools needs while it runs. Raises ApiMisuse for arrays whose shapes or
    types do not fit together, and for pieces DeviceError where one is late or not taken, or what ended them.
    """
    _validate(given)
    _validate_outputs(given, values_out, blinded_out)
    if dispatch.isa is Isa.NUMPY:
        return _run_reference(given, values_out, blinded_out)
    if given.pooling is None:
        return _run_native(dispatch, given, values_out, blinded_out)
    batch, count = given.shape
    maxima = aligned_empty((batch, given.pooling.count), np.int16) if values_out is None else values_out
    small = batch * count < _POOLED_ELEMENTS and not (dispatch.isa in _IN_REGISTERS and given.pooling.by_pairs)
    run = _run_then_pool if small else _run_pooled
    dots = run(dispatch, given, given.pooling, maxima, scratch)
    return PassOutput(maxima, dots, np.empty((batch, 0), np.uint64), None)


def field_multiply(dispatch: Dispatch, a: Elements, b: Elements) -> Elements:
    """(a * b) mod p, elementwise, for elements of the field in rows of one length."""
    if dispatch.isa is Isa.NUMPY:
        return field.multiply(a, b)
    product = np.empty_like(a)
    _native.field_multiply(dispatch.isa.code, a, b, product)
    return product


def _run_native(dispatch: Dispatch, given: PassInput, values_out: Any, blinded_out: Any) -> PassOutput:
    shape = batch, count = given.shape
    program = given.program
    values: Any = values_out
    real = None
    if program is not None and program.output is None:
        values = real = aligned_empty(shape, np.float32) if values_out is None else values_out
    elif program is not None and not given.kept:
        values = None
    elif program is not None and values_out is None:
        values = aligned_empty(shape, np.int16)
    blinded = None
    if given.mask is not None:
        blinded = aligned_empty(shape, np.int32) if blinded_out is None else blinded_out
    going = isinstance(blinded, StreamedWords)
    output = (
        None if real is not None else values,
        real,
        given.probe_images,
        given.mask,
        None if going else blinded,
        batch * count >= _STREAM_ELEMENTS,
        batch * count >= _STREAM_VALUES,
    )
    native_program = _encode_program(program, given.operands)

    ranges = dispatch.threads * _RANGES_PER_THREAD if dispatch.threads > 1 else 1
    source_dots = np.empty((dispatch.threads, batch, len(given.probes)), np.uint64)
    output_dots = np.empty((dispatch.threads, batch, len(given.probe_images)), np.uint64)
    shape_of_ranges = (batch, count, _range_multiple(batch), ranges, dispatch.threads)
    dots = (source_dots, output_dots)
    source, pieces = _encode_source(given), (_encode_pieces(given.source), _encode_pieces(blinded))
    told = _native.fused_pass(
        dispatch.isa.code, dispatch.team, shape_of_ranges, source, native_program, output, dots, *pieces
    )
    settle(given.source, blinded, told)
    if program is None and values_out is None:
        values = given.source
    return PassOutput(values, source_dots[0], output_dots[0], None if going else blinded)


def _run_then_pool(dispatch: Dispatch, given: PassInput, pooling: Pooling, maxima: Any, scratch: Room) -> Elements:
    whole = scratch(given.shape, np.int16)
    done = _run_native(dispatch, replace(given, pooling=None), whole, None)
    pool(dispatch, pooling.step, whole.reshape(-1, *pooling.shape), lambda shape, _: maxima.reshape(shape))
    return done.source_dots


def _run_pooled(dispatch: Dispatch, given: PassInput, pooling: Pooling, maxima: Any, scratch: Room) -> Elements:
    batch, count = given.shape
    height, width, channels = pooling.shape
    rows, columns = window_words(pooling.step.rows, height), window_words(pooling.step.columns, width)
    band = int((rows[:, 1] - rows[:, 0]).max()) * width * channels
    band = -(-band // 32) * 32  # whole cache lines
    room = scratch((dispatch.threads, _native.POOLING_ITEMS, band), np.int16)
    dots = np.empty((dispatch.threads, batch, len(given.probes)), np.uint64)
    told = _native.fused_pass_pooled(
        dispatch.isa.code,
        dispatch.team,
        (batch, count, dispatch.threads),
        _encode_source(given),
        _encode_program(given.program, given.operands),
        (rows, columns, len(rows), len(columns), width, channels, room, maxima, band),
        dots,
        _encode_pieces(given.source),
    )
    settle(given.source, None, told)
    summed: Elements = dots[0]
    return summed


def _encode_source(given: PassInput) -> tuple[Any, ...]:
    """(claims or None, packed claims or None, activation or None, mask image or None, probes)"""
    source = None if isinstance(given.source, StreamedClaim) else given.source
    arrays = (source if source is not None and source.dtype == kind else None for kind in _SOURCES)
    return (*arrays, given.mask_image, given.probes)


def _encode_pieces(way: NDArray[Any] | Streamed | None) -> tuple[Any, ...] | None:
    """(memory, bytes of a place, places, ready, taken, over, first, span, packed, patience), or None."""
    if not isinstance(way, Streamed):
        return None
    passage, ring = way.passage, way.passage.ring
    places, size = ring.places.shape
    counters = (ring.ready, ring.taken, way.over)
    return (ring.places, size, places, *counters, passage.first, passage.span, passage.packed, way.timeout_seconds)


def _range_multiple(batch: int) -> int:
    """Whole tiles, and enough of them that a range is worth handing to a thread."""
    return max(1, _RANGE_ELEMENTS // (batch * _TILE_COUNT)) * _TILE_COUNT


def _encode_program(program: Program | None, operands: Mapping[str, NDArray[np.int16]]) -> tuple[Any, ...]:
    if program is None:
        return ((), 1.0, 0.0)
    operations = tuple(_encode_operation(operation, operands) for operation in program.operations)
    if program.output is None:
        return (operations, 1.0, 0.0)
    return (operations, float(program.output.inverse), float(program.output.limit))


def _encode_operation(operation: PreparedOperation, operands: Mapping[str, NDArray[np.int16]]) -> tuple[Any, ...]:
    """(kind, function, parameter, length, multiplier, bias, operand, period), as the extension reads it."""
    if isinstance(operation, PreparedAffine):
        length = operation.wide_bias.size - PreparedAffine.ROOM
        return (0, 0, 0.0, length, operation.wide_multiplier, operation.wide_bias, None, operation.bias.size)
    if isinstance(operation, PreparedApply):
        return (1, _FUNCTION_CODES[operation.function], float(operation.parameter), 0, None, None, None, 0)
    kind = 2 if isinstance(operation, PreparedAdd) else 3
    operand = operands[operation.operand]
    return (kind, 0, float(operation.scale), operand.shape[1], None, None, operand, 0)


def _run_reference(
    given: PassInput, values_out: Values | None, blinded_out: Words | StreamedWords | None
) -> PassOutput:
    # LOAD-BEARING: one copy in; the device may change the claims while they are read
    copied = given.source.gather() if isinstance(given.source, StreamedClaim) else given.source.copy()
    source: Any = unpack_claims(copied) if copied.dtype == _UINT8 else copied
    if given.mask_image is not None:
        source = (source.view(np.uint32) - given.mask_image.view(np.uint32)).view(np.int32)  # wraps mod 2**32
    values: Any = source if given.program is None else run_program(given.program, source, given.operands)
    blinded = None
    if given.mask is not None:
        blinded = (values.astype(np.int32).view(np.uint32) + given.mask.view(np.uint32)).view(np.int32)
    if given.pooling is not None:
        images = values.reshape(len(values), *given.pooling.shape)
        values = np.ascontiguousarray(pool_reference(given.pooling.step, images)).reshape(len(values), -1)
    if isinstance(blinded_out, StreamedWords) and blinded is not None:
        blinded_out.write(blinded)
        blinded = None
    return PassOutput(
        _deliver(values, values_out) if given.kept or given.program is None else None,
        _dots(source, given.probes),
        _dots(values, given.probe_images),
        None if blinded is None else _deliver(blinded, blinded_out),
    )


def unpack_claims(packed: Packed) -> Words:
    """int32 [B, M] of packed claims, uint8 [B, M, 3], each byte read once."""
    words = np.zeros((*packed.shape[:2], 4), np.uint8)
    words[..., 1:] = packed
    return words.reshape(packed.shape[0], -1).view("<i4") >> 8


def pack_claims(words: Words) -> Packed:
    """uint8 [B, M, 3] of int32 [B, M]: the low three bytes of each, all there is where |y| < 2^23."""
    count = math.prod(words.shape[1:])
    return np.ascontiguousarray(words.reshape(len(words), count, 1).view(np.uint8)[..., :PACKED_SIZE])


def _deliver(result: Any, out: Any) -> Any:
    if out is None:
        return result
    np.copyto(out, result, casting="no")
    return out


def _dots(values: Any, probes: tuple[Elements, ...]) -> Elements:
    dots = np.empty((values.shape[0], len(probes)), np.uint64)
    for column, probe in enumerate(probes):
        dots[:, column] = field.dot(values, probe)
    return dots


def _validate(given: PassInput) -> None:
    dtype = _validate_source(given.source)
    shape = given.shape
    if given.program is None:
        _require(dtype == _INT16, "claims need a program")
    if given.mask_image is not None:
        _require(dtype == _INT32, "only claims of four bytes have a mask image")
        _require_array(given.mask_image, _INT32, shape, "mask image")
    if given.mask is not None:
        _require_array(given.mask, _INT32, shape, "mask")
    _require(max(len(given.probes), len(given.probe_images)) <= MAXIMUM_PROBES, "more than 64 probes on one side")
    for elements in (*given.probes, *given.probe_images):
        _require_array(elements, _UINT64, shape[1:], "probe")
    if given.program is not None:
        _validate_program(given.program, given)
        _require(given.kept or given.program.output is not None, "real outputs are always kept")
    if given.pooling is not None:
        _validate_pooling(given, given.pooling)


def _validate_source(source: NDArray[Any] | StreamedClaim) -> np.dtype[Any]:
    """The type of what a pass reads."""
    if isinstance(source, StreamedClaim):
        _validate_passage(source.passage)
        return source.passage.dtype
    packed = source.dtype == _UINT8 and source.ndim == 3 and source.shape[2] == PACKED_SIZE
    plain = source.ndim == 2 and source.dtype in (_INT16, _INT32)
    _require(packed or plain, "the source must be int16 or int32 [B, M], or uint8 [B, M, 3]")
    _require(source.flags.c_contiguous and source.size > 0, "the source must be contiguous and not empty")
    return source.dtype


def _validate_passage(passage: Passage) -> None:
    places = passage.ring.places
    whole = places.ndim == 2 and places.flags.c_contiguous and len(places).bit_count() == 1
    fits = passage.span > 0 and min(passage.batch, passage.count) > 0
    size = passage.batch * min(passage.span, passage.count) * passage.width
    _require(whole and fits and size <= places.shape[-1], "the pieces do not fit their places")


def _validate_pooling(given: PassInput, pooling: Pooling) -> None:
    quantised = given.program is not None and given.program.output is not None
    _require(quantised and given.kept, "only activations that are kept are pooled")
    _require(given.mask is None and not given.probe_images, "an activation that is pooled is neither dotted nor masked")
    _require(pooling.step.reduction is Reduction.MAXIMUM, "only a maximum is taken as the pass goes")
    fits = len(pooling.shape) == 3 and math.prod(pooling.shape) == given.shape[1]
    _require(fits, "the image that is pooled has another size")
    window_words(pooling.step.columns, pooling.shape[1])
    window_words(pooling.step.rows, pooling.shape[0])
    follow = rows_follow(pooling.step.rows, pooling.shape[0]) and len(pooling.step.columns) > 0
    _require(follow, "the windows do not take the rows one after another")
    if isinstance(given.source, StreamedClaim) and given.source.passage.pieces > 1:
        grain = whole_rows(pooling.step, pooling.shape)
        whole = grain > 0 and given.source.passage.span % grain == 0
        _require(whole, "a piece ends within the rows of a window")


def _validate_outputs(given: PassInput, values_out: Values | None, blinded_out: Words | StreamedWords | None) -> None:
    real = given.program is not None and given.program.output is None
    if values_out is not None:
        count = given.shape[1] if given.pooling is None else given.pooling.count
        _require_array(values_out, _FLOAT32 if real else _INT16, (given.shape[0], count), "values_out")
    if blinded_out is not None:
        _require(given.mask is not None, "blinded_out needs a mask")
        if not isinstance(blinded_out, StreamedWords):
            _require_array(blinded_out, _INT32, given.shape, "blinded_out")
            return
        going = blinded_out.passage
        _validate_passage(going)
        _require(going.shape == given.shape and not going.packed, "the pieces of words have another shape")
        source = given.source
        alike = not isinstance(source, StreamedClaim) or source.passage.span == going.span
        _require(alike, "a claim and the words that it becomes are cut alike")


def _validate_program(program: Program, given: PassInput) -> None:
    _require(1 <= len(program.operations) <= _MAXIMUM_OPERATIONS, "a program has 1 to 64 operations")
    _require(isinstance(program.operations[0], PreparedAffine), "the first operation must be an affine")
    batch, count = given.shape
    quantised = program.output is not None
    _require(quantised or (given.mask is None and not given.probe_images), "real outputs are neither dotted nor masked")
    for operation in program.operations:
        if isinstance(operation, PreparedAffine):
            _require(count % operation.multiplier.size == 0, "an affine length does not divide the count")
        elif isinstance(operation, (PreparedAdd, PreparedMultiply)):
            operand = given.operands.get(operation.operand)
            if operand is None or operand.ndim != 2 or operand.shape[1] < 1:
                raise ApiMisuse(f"operand {operation.operand} must be given as int16 [B, P]")
            _require_array(operand, _INT16, (batch, operand.shape[1]), f"operand {operation.operand}")
            _require(count % operand.shape[1] == 0, f"operand {operation.operand} does not divide the count")
        else:
            _require(isinstance(operation, PreparedApply), "unknown operation")


def _require_array(array: NDArray[Any], dtype: np.dtype[Any], shape: tuple[int, ...], name: str) -> None:
    if array.dtype != dtype or array.shape != shape or not array.flags.c_contiguous:
        raise ApiMisuse(f"{name} must be contiguous {dtype} of shape {shape}")


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ApiMisuse(message)
