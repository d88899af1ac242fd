"""A claim that comes in pieces, through a ring of places that its sender fills again and again.

What is written to a few megabytes over and over stays in the caches: a claim that lies somewhere as a whole is written
to memory by the device and read from there by the pass, and memory is what limits both (decision 0022).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from slalom.errors import DeviceError, SlalomError, afresh

PIECE_NUMBERS = 2**32  # pieces are counted modulo this
_LOOK_SECONDS = 1e-4
_LATE, _OVER = 1, 2  # as the extension tells


@dataclass(frozen=True, eq=False, repr=False)
class Ring:
    """`places`: uint8 [N, bytes], N a power of two; piece n lies in place n mod N.

    `ready`: uint32 [1], how many pieces the sender has written. `taken`: uint32 [1], how many were read, so that their
    places may be written again. Both count all pieces there ever were, modulo 2^32.
    """

    places: NDArray[np.uint8]
    ready: NDArray[np.uint32]
    taken: NDArray[np.uint32]

    def has(self, number: int) -> bool:
        """Whether the sender says that it has written this piece."""
        return _reached(self.ready, number + 1)

    def is_turn_of(self, number: int) -> bool:
        """Whether the pieces before this one are written, and what lay in its place was read."""
        return int(self.ready[0]) == number and _reached(self.taken, number + 1 - len(self.places))


class Piece(NamedTuple):
    """Elements begin..end-1 of every item: the piece's number, and its place as [batch, elements]."""

    number: int
    begin: int
    end: int
    place: NDArray[Any]


@dataclass(frozen=True, eq=False, repr=False)
class Passage:
    """How a claim [batch, count] goes through a ring: span elements of every item at a time, from piece `first` on.

    int32 [batch, elements], or packed to three bytes each, uint8 [batch, elements, 3]; the last piece may be shorter.
    """

    ring: Ring
    first: int
    batch: int
    count: int
    span: int
    packed: bool

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the claim as an array."""
        return (self.batch, self.count, 3) if self.packed else (self.batch, self.count)

    @property
    def nbytes(self) -> int:
        """Of the claim."""
        return self.batch * self.count * self.width

    @property
    def width(self) -> int:
        """Bytes of an element."""
        return 3 if self.packed else 4

    @property
    def pieces(self) -> int:
        """How many pieces there are."""
        return -(-self.count // self.span)

    def each(self) -> Iterator[Piece]:
        """The pieces, in order."""
        kind = np.uint8 if self.packed else np.int32
        for index, begin in enumerate(range(0, self.count, self.span)):
            end = min(begin + self.span, self.count)
            shape = (self.batch, end - begin, *self.shape[2:])
            number = (self.first + index) % PIECE_NUMBERS
            place = self.ring.places[number % len(self.ring.places)]
            size = self.batch * (end - begin) * self.width
            yield Piece(number, begin, end, place[:size].view(kind).reshape(shape))

    def write(self, words: NDArray[Any], patience_seconds: float, is_left: Callable[[], bool] = lambda: False) -> None:
        """Puts a claim into the ring, each piece as soon as those before it are there and its place is free.

        Raises DeviceError where the other side takes none for so long, or `is_left` says that it is gone.
        """
        rows = words.reshape(self.shape)
        for piece in self.each():
            _wait(lambda: self.ring.is_turn_of(piece.number) or is_left(), patience_seconds)  # noqa: B023 - at once
            if not self.ring.is_turn_of(piece.number):
                raise DeviceError("nobody takes the pieces of a claim any more")
            np.copyto(piece.place, rows[:, piece.begin : piece.end], casting="no")
            self.ring.ready[0] = (piece.number + 1) % PIECE_NUMBERS


class StreamedClaim:
    """A claim that is read once, as it comes. `asked_at`: when, in seconds of `time.perf_counter`.

    A piece may take `timeout_seconds`. `end` says that nothing more will come. `on_arrival` is told, once all is read,
    when the last piece came and how many seconds it was waited for them.
    """

    def __init__(self, passage: Passage, timeout_seconds: float) -> None:
        self.passage = passage
        self.timeout_seconds = timeout_seconds
        self.over = np.zeros(1, np.uint32)
        self.asked_at = time.perf_counter()
        self.on_arrival: Callable[[float, float], None] = lambda arrived_at, waited: None
        self._failure: SlalomError | None = None

    @property
    def nbytes(self) -> int:
        """Of the claim."""
        return self.passage.nbytes

    def end(self, error: SlalomError) -> None:
        """Has whoever waits for a piece raise this error."""
        self._failure = error
        self.over[0] = 1

    def gather(self) -> NDArray[Any]:
        """All of it in memory of the caller's own. Raises as `settle`."""
        whole = np.empty(self.passage.shape, np.uint8 if self.passage.packed else np.int32)
        begin = time.perf_counter()
        for piece in self.passage.each():
            self._wait_for(piece.number)
            whole[:, piece.begin : piece.end] = piece.place
            self.passage.ring.taken[0] = (piece.number + 1) % PIECE_NUMBERS
        arrived_at = time.perf_counter()
        self.settle(0, arrived_at, arrived_at - begin)
        return whole

    def settle(self, state: int, arrived_at: float, waited: float) -> None:
        """Takes note of how its pieces came. Raises DeviceError where one was late, or the error that ended it all."""
        if state == _OVER:
            raise afresh(self._failure or DeviceError("the worker is gone"))
        if state == _LATE:
            raise _late(self.timeout_seconds)
        self.on_arrival(arrived_at, waited)

    def _wait_for(self, number: int) -> None:
        _wait(lambda: bool(self.over[0]) or self.passage.ring.has(number), self.timeout_seconds)
        if self.over[0] and not self.passage.ring.has(number):
            self.settle(_OVER, 0.0, 0.0)


def whole_claim(claim: NDArray[Any] | StreamedClaim) -> NDArray[Any]:
    """The claim as an array: the very one that was given, or all its pieces. Raises as `StreamedClaim.settle`."""
    return claim.gather() if isinstance(claim, StreamedClaim) else claim


def _reached(counter: NDArray[np.uint32], value: int) -> bool:
    """Whether a counter has come to a value, or gone beyond, modulo 2^32."""
    return (int(counter[0]) - value) % PIECE_NUMBERS < PIECE_NUMBERS // 2


def _wait(condition: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise _late(seconds)
        time.sleep(_LOOK_SECONDS)


def _late(seconds: float) -> DeviceError:
    return DeviceError(f"the device did not answer within {seconds:g} seconds")
