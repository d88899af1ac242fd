"""Claims that come, and words that go, in pieces: through a ring of places that their sender fills again and again.

What is written to a few megabytes over and over stays in the caches: what lies somewhere as a whole is written to
memory by one side and read from there by the other, and memory is what limits both (decisions 0022 and 0026).
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
_LATE, _OVER, _FULL = 1, 2, 4  # as the extension tells


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
    """How an array [batch, count] goes through a ring: span elements of every item at a time, from piece `first` on.

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
        """Of the array."""
        return (self.batch, self.count, 3) if self.packed else (self.batch, self.count)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the array."""
        return np.dtype(np.uint8 if self.packed else np.int32)

    @property
    def nbytes(self) -> int:
        """Of the array."""
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
        for index, begin in enumerate(range(0, self.count, self.span)):
            end = min(begin + self.span, self.count)
            shape = (self.batch, end - begin, *self.shape[2:])
            number = (self.first + index) % PIECE_NUMBERS
            place = self.ring.places[number % len(self.ring.places)]
            size = self.batch * (end - begin) * self.width
            yield Piece(number, begin, end, place[:size].view(self.dtype).reshape(shape))

    def write(self, words: NDArray[Any], patience_seconds: float, is_left: Callable[[], bool] = lambda: False) -> None:
        """Puts an array into the ring, each piece as soon as those before it are there and its place is free.

        Raises DeviceError where the other side takes none for so long, or `is_left` says that it is gone.
        """
        rows = words.reshape(self.shape)
        for piece in self.each():
            _wait(lambda: self.ring.is_turn_of(piece.number) or is_left(), patience_seconds)  # noqa: B023 - at once
            if not self.ring.is_turn_of(piece.number):
                raise DeviceError("nobody takes the pieces any more")
            np.copyto(piece.place, rows[:, piece.begin : piece.end], casting="no")
            self.ring.ready[0] = (piece.number + 1) % PIECE_NUMBERS

    def read(self, patience_seconds: float, is_left: Callable[[], bool] = lambda: False) -> NDArray[Any]:
        """The array, each piece read once, as soon as it is there.

        Raises DeviceError where one does not come for so long, or `is_left` says that the other side is gone.
        """
        whole = np.empty(self.shape, self.dtype)
        for piece in self.each():
            _wait(lambda: self.ring.has(piece.number) or is_left(), patience_seconds)  # noqa: B023 - at once
            if not self.ring.has(piece.number):
                raise DeviceError("nobody writes the pieces any more")
            whole[:, piece.begin : piece.end] = piece.place
            self.ring.taken[0] = (piece.number + 1) % PIECE_NUMBERS
        return whole


class Streamed:
    """What goes through a ring while a pass runs. A piece may take `timeout_seconds`; `end` says that all is over."""

    def __init__(self, passage: Passage, timeout_seconds: float) -> None:
        self.passage = passage
        self.timeout_seconds = timeout_seconds
        self.over = np.zeros(1, np.uint32)
        self._failure: SlalomError | None = None

    @property
    def nbytes(self) -> int:
        """Of all of it."""
        return self.passage.nbytes

    @property
    def is_over(self) -> bool:
        """Whether it ended before its end."""
        return bool(self.over[0])

    def end(self, error: SlalomError) -> None:
        """Has whoever waits for a piece, or for its place, raise this error."""
        self._failure = error
        self.over[0] = 1

    def _ended(self) -> SlalomError:
        return afresh(self._failure or DeviceError("the worker is gone"))


class StreamedClaim(Streamed):
    """A claim that is read once, as it comes. `asked_at`: when, in seconds of `time.perf_counter`.

    `on_arrival` is told, once all is read, when the last piece came and how many seconds it was waited for them.
    """

    def __init__(self, passage: Passage, timeout_seconds: float) -> None:
        super().__init__(passage, timeout_seconds)
        self.asked_at = time.perf_counter()
        self.on_arrival: Callable[[float, float], None] = lambda arrived_at, waited: None

    def gather(self) -> NDArray[Any]:
        """All of it in memory of the caller's own. Raises as `settle`."""
        begin = time.perf_counter()
        try:
            whole = self.passage.read(self.timeout_seconds, lambda: self.is_over)
        except DeviceError:
            if self.is_over:
                raise self._ended() from None
            raise
        arrived_at = time.perf_counter()
        self.settle(0, arrived_at, arrived_at - begin)
        return whole

    def settle(self, state: int, arrived_at: float, waited: float) -> None:
        """Takes note of how its pieces came. Raises DeviceError where one was late, or the error that ended it all."""
        if state == _OVER:
            raise self._ended()
        if state == _LATE:
            raise _late(self.timeout_seconds)
        self.on_arrival(arrived_at, waited)


class StreamedWords(Streamed):
    """Blinded words int32 [batch, count] that a pass writes once, as it makes them, for the device to read.

    `waited`: seconds for which a pass that had nothing else to wait for waited until it could write.
    """

    def __init__(self, passage: Passage, timeout_seconds: float) -> None:
        super().__init__(passage, timeout_seconds)
        self.waited = 0.0

    def write(self, words: NDArray[np.int32]) -> None:
        """Writes all of them. Raises as `settle`."""
        try:
            self.passage.write(words, self.timeout_seconds, lambda: self.is_over)
        except DeviceError:
            self.settle(_OVER if self.is_over else _FULL, 0.0)

    def settle(self, state: int, waited: float) -> None:
        """Takes note of how its pieces went. Raises DeviceError where none was taken in time, or what ended it all."""
        if state == _OVER:
            raise self._ended()
        if state == _FULL:
            raise DeviceError(f"the device took none of its words within {self.timeout_seconds:g} seconds")
        self.waited += waited


def settle(claim: object, words: object, told: tuple[int, float, float]) -> None:
    """Has what went through rings in one pass take note of how, as the extension told. Raises as `Streamed.settle`."""
    state, arrived_at, waited = told
    coming = isinstance(claim, StreamedClaim)
    if isinstance(words, StreamedWords) and (state == _FULL or words.is_over or not coming):
        words.settle(state, waited)
    if isinstance(claim, StreamedClaim):
        claim.settle(state, arrived_at, waited)


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
