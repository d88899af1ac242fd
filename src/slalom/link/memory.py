"""The memory of one link as the trusted side has it: what of it is whose, and what must arrive where."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slalom.arithmetic.fused import PACKED_SIZE
from slalom.arithmetic.pieces import Ring, StreamedClaim, StreamedWords
from slalom.errors import DeviceError, SlalomError
from slalom.link.answers import Expected
from slalom.link.conversation import Arrivals, Conversation, Message, array_bytes
from slalom.link.message import REGION_SIZE, Bulk, Element, Errand, Geometry, Header, Kind
from slalom.link.region import PieceNumbers, Region, Slots, free_bytes, make_region, passage_of, word_passage_of
from slalom.plan.steps import Shape

DTYPES: Mapping[Element, np.dtype[Any]] = MappingProxyType(
    {
        Element.INT16: np.dtype(np.int16),
        Element.INT32: np.dtype(np.int32),
        Element.INT24: np.dtype(np.uint8),
        Element.FLOAT32: np.dtype(np.float32),
    }
)
_NOTHING = np.empty(0, np.uint8)  # what lies in the slot of an answer that has none


@dataclass(frozen=True, eq=False)
class Memory:
    """A region, which of its slots are free, its rings with the numbers of their pieces, and the largest batch.

    `timeout_seconds` bounds the wait for a slot and for a piece. In a region of `Bulk.INLINE` bytes travel behind their
    header.
    """

    region: Region
    asks: Slots
    claims: Slots
    ring: Ring | None
    pieces: PieceNumbers
    word_ring: Ring | None
    word_pieces: PieceNumbers
    batch: int
    bulk: Bulk
    timeout_seconds: float

    @property
    def is_read(self) -> bool:
        """Whether every piece of a claim that was asked for was read."""
        return self.ring is None or int(self.ring.taken[0]) == self.pieces.next

    def room(self, shape: Shape) -> NDArray[np.int32]:
        """A free ask slot as words int32 [B, *shape]."""
        return self.region.ask(self.asks.lease(self.timeout_seconds), shape, np.int32)

    def way(self, batch: int, count: int, span: int) -> StreamedWords | None:
        """The way of the words int32 [B, count] of one ask through their ring, if there is one."""
        if self.word_ring is None:
            return None
        passage = word_passage_of(self.word_ring, self.word_pieces, batch, count, span)
        return StreamedWords(passage, self.timeout_seconds)

    def place(self, words: NDArray[Any]) -> int:
        """The ask slot in which the words lie, copied there if need be."""
        slot = self.region.ask_slot_of(words)
        if slot is None:
            slot = self.asks.lease(self.timeout_seconds)
            np.copyto(self.region.ask(slot, words.shape, words.dtype), words)
        return slot

    def lease_claim(self) -> int:
        """A free claim slot."""
        return self.claims.lease(self.timeout_seconds)

    def expect(
        self, arrivals: Arrivals[NDArray[Any]], header: Header, shape: Shape, errand: Errand
    ) -> tuple[StreamedClaim | None, Expected]:
        """An answer in pieces, or in its slot, which is free again once the array is let go."""
        if errand.span and self.ring is not None:
            passage = passage_of(self.ring, self.pieces, errand, header.batch, math.prod(shape))
            claim = StreamedClaim(passage, self.timeout_seconds)
            answer = arrivals.expected(replace(header, size=passage.nbytes), None, _NOTHING)
            return claim, or_else(answer, claim.end)
        full = (header.batch, *shape)
        if header.element is Element.INT24:
            full = (header.batch, math.prod(shape), PACKED_SIZE)
        array = self.region.claim(header.slot, full, DTYPES[header.element])
        self.claims.release_with(array, header.slot)
        body = array_bytes(array) if self.bulk is Bulk.INLINE else None
        return None, arrivals.expected(replace(header, size=array.nbytes), body, array)


def announce_memory(
    conversation: Conversation, geometry: Geometry, batch: int, bulk: Bulk, timeout_seconds: float
) -> Memory:
    """Makes a region and has the device map it; its name is gone from the file system before it is used.

    Raises DeviceError, before anything crosses, where the machine has less memory free.
    """
    free = free_bytes()
    if free is not None and geometry.size > free:
        # LOAD-BEARING: memory files are given more than there is, and whoever writes to them is killed
        raise DeviceError(
            f"the link needs {geometry.size / 1e9:.1f} GB of memory for micro-batches of {batch} images, and "
            f"{free / 1e9:.1f} GB are free",
            hint="ask for fewer images at once, or for more micro-batches",
        )
    made = make_region(bulk, geometry)
    try:
        header = Header(Kind.REGION, 0, batch=batch, size=REGION_SIZE)
        message = Message(header, [geometry.encode(made.name)], made.descriptor)
        conversation.call(message, Header(Kind.READY, 0, batch=batch))
    finally:
        made.forget()
    region = made.region
    rings = (region.claim_ring(), PieceNumbers(), region.word_ring(), PieceNumbers())
    return Memory(region, Slots(geometry.ask_count), Slots(geometry.claim_count), *rings, batch, bulk, timeout_seconds)


def or_else(expected: Expected, more: Callable[[SlalomError], None]) -> Expected:
    """The same, and `more` is told too where it fails."""

    def fail(error: SlalomError) -> None:
        more(error)
        expected.fail(error)

    return replace(expected, fail=fail)
