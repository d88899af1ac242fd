"""The fixed header of every message, and the fixed bodies: what `docs/protocol.md` says, in code.

All integers are little-endian. The trusted side makes the header it expects from its own plan and state and compares
all 48 bytes; it reads no field of a peer's header, but for the version and the code of a `FAILURE`.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

from slalom.errors import WireError

VERSION = 4
MAGIC = b"SLLM"
NO_SLOT = 2**32 - 1
DIGEST_SIZE = 32
NAME_SIZE = 64  # of a file in /dev/shm, padded with zeros
MAXIMUM_SLOTS = 2**16
SLOT_ALIGNMENT = 4096
ISOLATION_LIMIT = 2**16  # no bit beyond has a meaning
SHM_FOLDER = Path("/dev/shm")
SHM_PREFIX = "slalom-"

_HEADER = struct.Struct("<4sHHQQIIIIQ")
_PREFIX = struct.Struct("<4sH")
_HELLO = struct.Struct(f"<{DIGEST_SIZE}sII")
_WELCOME = struct.Struct(f"<{DIGEST_SIZE}sIIII")
_REGION = struct.Struct(f"<IIIIQQQ{NAME_SIZE}s")
_ERRAND = struct.Struct("<IIII")
_SPAN = struct.Struct("<I")

HEADER_SIZE = _HEADER.size
HELLO_SIZE = _HELLO.size
WELCOME_SIZE = _WELCOME.size
REGION_SIZE = _REGION.size
ERRAND_SIZE = _ERRAND.size
SPAN_SIZE = _SPAN.size


class Kind(IntEnum):
    """What a message is. Below 64 from the trusted side, from 64 on from the device."""

    HELLO = 1
    REGION = 2
    COMPUTE = 3
    RUN_AHEAD = 4
    GRANT = 5
    RUN = 6
    PING = 7
    DEAL = 8
    WELCOME = 64
    READY = 65
    CLAIM = 66
    OUTPUT = 67
    PONG = 68
    FAILURE = 69


class Element(IntEnum):
    """The type of an array's numbers."""

    NONE = 0
    INT16 = 1
    INT32 = 2
    FLOAT32 = 3
    INT24 = 4  # a claim of a step whose range proof leaves it three bytes
    OTHER = 5  # never right: what a device answers with some other type


class Bulk(IntEnum):
    """How arrays cross: in a sealed memory file, in a file of /dev/shm, or behind their header."""

    MEMFD = 1
    SHM = 2
    INLINE = 3


class Failure(IntEnum):
    """Why the device ends the conversation. A code, for no word of the other side is shown to anybody."""

    VERSION = 1
    PLAN = 2
    MALFORMED = 3
    DEVICE = 4
    MEMORY = 5
    BUSY = 6


@dataclass(frozen=True)
class Header:
    """48 bytes before everything else.

    sequence: counts the messages of one direction from 0. request: the micro-batch, from 1; 0 outside of one.
    step: position of a linear step (or output) in the plan's order, or how many errands follow. slot: where the array
    lies. batch: items. element, size: type and bytes of the array, or the bytes of a fixed body.
    """

    kind: Kind
    sequence: int
    request: int = 0
    step: int = 0
    slot: int = NO_SLOT
    batch: int = 0
    element: Element = Element.NONE
    size: int = 0

    def encode(self) -> bytes:
        """The 48 bytes. Raises WireError for a number that has no room."""
        fields = (self.kind, self.sequence, self.request, self.step, self.slot, self.batch, self.element, self.size)
        try:
            return _HEADER.pack(MAGIC, VERSION, *fields)
        except struct.error as error:
            raise WireError("a number does not fit its field of the protocol") from error


def decode_header(raw: bytes) -> Header:
    """The header in 48 bytes. Raises WireError for another size, magic, version, kind or element type."""
    if len(raw) != HEADER_SIZE:
        raise WireError("a message is cut short")
    require_version(raw)
    _, _, kind, sequence, request, step, slot, batch, element, size = _HEADER.unpack(raw)
    try:
        return Header(Kind(kind), sequence, request, step, slot, batch, Element(element), size)
    except ValueError as error:
        raise WireError("a message of a kind that the protocol does not have") from error


def require_version(raw: bytes) -> None:
    """Raises WireError naming both versions where a header is of another one."""
    magic, version = _PREFIX.unpack(raw[: _PREFIX.size])
    if magic != MAGIC:
        raise WireError("the other side does not speak this protocol", hint="is a slalom worker listening there?")
    if version != VERSION:
        raise WireError(
            f"the other side speaks version {version} of the protocol, this one version {VERSION}",
            hint="install the same version of slalom on both sides",
        )


@dataclass(frozen=True)
class Hello:
    """The trusted side's first words: which plan, and how arrays cross."""

    digest: bytes
    bulk: Bulk

    def encode(self) -> bytes:
        """40 bytes."""
        return _HELLO.pack(self.digest, self.bulk, 0)


def decode_hello(raw: bytes) -> Hello:
    """The body of a HELLO. Raises WireError."""
    if len(raw) != HELLO_SIZE:
        raise WireError("a hello is cut short")
    digest, bulk, zero = _HELLO.unpack(raw)
    if zero or bulk not in list(Bulk):
        raise WireError("a hello holds what the protocol does not have")
    return Hello(digest, Bulk(bulk))


class Accelerator(IntEnum):
    """What a worker computes on."""

    CPU = 1
    CUDA = 2


@dataclass(frozen=True)
class Welcome:
    """The device's first words. `isolation`: the bits of its confinement as it says; `threads` of its engine; whether
    it `streams`: fills and empties rings beside all else that it does, and so can be sent words in pieces."""

    digest: bytes
    isolation: int
    accelerator: Accelerator
    threads: int
    streams: bool = False

    def encode(self) -> bytes:
        """48 bytes."""
        return _WELCOME.pack(self.digest, self.isolation, self.accelerator, self.threads, self.streams)


def decode_welcome(raw: bytes) -> Welcome:
    """The body of a WELCOME. Raises WireError."""
    if len(raw) != WELCOME_SIZE:
        raise WireError("a welcome is cut short")
    digest, isolation, accelerator, threads, streams = _WELCOME.unpack(raw)
    if streams > 1 or isolation >= ISOLATION_LIMIT or accelerator not in list(Accelerator):
        raise WireError("a welcome holds what the protocol does not have")
    return Welcome(digest, isolation, Accelerator(accelerator), threads, bool(streams))


@dataclass(frozen=True)
class Geometry:
    """Where slots lie: `ask_count` of `ask_size` bytes, then `claim_count` of `claim_size`; sizes are whole pages.

    Then the ring of claims, `piece_count` places of `piece_size`, and a page of its counters; or neither, where both
    are 0. Then the ring of words, `word_count` places of the same size, and its page; or neither.
    """

    ask_count: int
    claim_count: int
    ask_size: int
    claim_size: int
    piece_count: int = 0
    piece_size: int = 0
    word_count: int = 0

    @property
    def ring_offset(self) -> int:
        """Where the ring of claims begins."""
        return self.ask_count * self.ask_size + self.claim_count * self.claim_size

    @property
    def word_offset(self) -> int:
        """Where the ring of words begins."""
        return self.ring_offset + self._ring_size(self.piece_count)

    @property
    def size(self) -> int:
        """Of the whole region."""
        return self.word_offset + self._ring_size(self.word_count)

    def _ring_size(self, places: int) -> int:
        return places * self.piece_size + (SLOT_ALIGNMENT if places else 0)

    def encode(self, name: bytes) -> bytes:
        """104 bytes, with the name of a file in /dev/shm, or none."""
        counts = (self.ask_count, self.claim_count, self.piece_count, self.word_count)
        return _REGION.pack(*counts, self.ask_size, self.claim_size, self.piece_size, name)


def decode_region(raw: bytes) -> tuple[Geometry, bytes]:
    """The body of a REGION: geometry and name. Raises WireError for what no trusted side would send."""
    if len(raw) != REGION_SIZE:
        raise WireError("a region is cut short")
    asks, claims, pieces, words, ask_size, claim_size, piece_size, name = _REGION.unpack(raw)
    geometry = Geometry(asks, claims, ask_size, claim_size, pieces, piece_size, words)
    counts = 1 <= asks <= MAXIMUM_SLOTS and 1 <= claims <= MAXIMUM_SLOTS and pieces <= MAXIMUM_SLOTS
    sizes = all(size and size % SLOT_ALIGNMENT == 0 for size in (ask_size, claim_size))
    ring = pieces.bit_count() <= 1 and (pieces > 0) == (piece_size > 0) and piece_size % SLOT_ALIGNMENT == 0
    ring = ring and words.bit_count() <= 1 and words <= pieces
    if not (counts and sizes and ring) or geometry.size >= 2**48:
        raise WireError("a region has no sense")
    return geometry, name.rstrip(b"\0")


@dataclass(frozen=True)
class Errand:
    """One thing to compute, a linear step or an output by position; the slot that takes the answer, and its type.

    span: where not 0, the answer has no slot: it comes through the ring, so many elements of each item in a piece.
    """

    step: int
    slot: int
    element: Element
    span: int = 0


def encode_span(span: int) -> bytes:
    """Four bytes behind the errands of an ask whose words come in pieces: so many elements of each item in a piece."""
    return _SPAN.pack(span)


def decode_span(raw: bytes) -> int:
    """The span. Raises WireError where it is cut short, or 0."""
    if len(raw) != SPAN_SIZE or not any(raw):
        raise WireError("words in pieces of no size")
    span: int = _SPAN.unpack(raw)[0]
    return span


def encode_errands(errands: Sequence[Errand]) -> bytes:
    """Sixteen bytes each."""
    return b"".join(_ERRAND.pack(errand.step, errand.slot, errand.element, errand.span) for errand in errands)


def decode_errands(raw: bytes) -> tuple[Errand, ...]:
    """The errands in a body. Raises WireError where it is cut short, or names no type."""
    if len(raw) % ERRAND_SIZE:
        raise WireError("a list of errands is cut short")
    try:
        errands = tuple(Errand(step, slot, Element(kind), span) for step, slot, kind, span in _ERRAND.iter_unpack(raw))
    except ValueError as error:
        raise WireError("an errand of a type that the protocol does not have") from error
    if any(errand.span and errand.slot != NO_SLOT for errand in errands):
        raise WireError("an answer comes through the ring, or has a slot")
    return errands
