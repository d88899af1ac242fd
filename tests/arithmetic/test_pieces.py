"""A claim in pieces gives the bits of the same claim as a whole, is read before its places are let go, and never waited
for in vain."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from slalom.arithmetic import fused
from slalom.arithmetic.dispatch import Isa, make_dispatch
from slalom.arithmetic.fused import PassInput, pack_claims, run_pass
from slalom.arithmetic.pieces import PIECE_NUMBERS, Passage, Ring, StreamedClaim, StreamedWords
from slalom.errors import ApiMisuse, DeviceError
from tests.arithmetic.test_fused import Case, draw, draw_words
from tests.arithmetic.test_pooled_pass import RESIDUAL, UNEVEN, Form
from tests.isas import FUSED_ISAS

PLACES, PLACE_SIZE = 4, 4096
PATIENCE = 20.0
ROW = Form().width * Form().channels  # elements of a row of the image of a form; its windows take two


def make_ring(first: int = 0, size: int = PLACE_SIZE) -> Ring:
    start = np.array([first], np.uint32)
    return Ring(np.zeros((PLACES, size), np.uint8), start.copy(), start.copy())


def streamed(words: NDArray[Any], span: int, ring: Ring, patience: float = PATIENCE) -> StreamedClaim:
    """The claim of these words, in pieces that nobody writes yet."""
    passage = Passage(ring, int(ring.ready[0]), len(words), words.shape[1], span, words.dtype == np.uint8)
    return StreamedClaim(passage, patience)


class Sender(threading.Thread):
    """Writes a claim piece by piece, and spoils each place as soon as it may be written again."""

    def __init__(self, passage: Passage, words: NDArray[Any]) -> None:
        super().__init__(daemon=True)
        self.passage, self.words = passage, words
        self.start()

    def run(self) -> None:
        ring = self.passage.ring
        for piece in self.passage.each():
            deadline = time.monotonic() + PATIENCE
            while not ring.is_turn_of(piece.number) and time.monotonic() < deadline:
                time.sleep(0)
            ring.places[piece.number % PLACES] = 0xA5
            np.copyto(piece.place, self.words[:, piece.begin : piece.end])
            ring.ready[0] = (piece.number + 1) % PIECE_NUMBERS


def assert_same(got: fused.PassOutput, wanted: fused.PassOutput) -> None:
    for name in ("values", "source_dots", "output_dots", "blinded"):
        one, other = getattr(got, name), getattr(wanted, name)
        assert (one is None) == (other is None), name
        assert one is None or (one.dtype == other.dtype and one.tobytes() == other.tobytes()), name


def inputs(kind: str) -> PassInput:
    """Five items of 1,536 elements, of the forms that a pass has; the last with a program that is not merged."""
    case = Case(5, 8 * ROW, RESIDUAL if kind == "residual" else Form().operations, 32, probes=2, images=1)
    given = draw(case)
    rng = np.random.default_rng(5)
    if kind == "packed":
        return replace(given, source=pack_claims(given.source))  # type: ignore[arg-type]
    if kind == "masked":
        words = draw_words(rng, given.shape), draw_words(rng, given.shape)
        return replace(given, mask_image=words[0], mask=words[1])
    return given


@pytest.mark.parametrize("first", [0, PIECE_NUMBERS - 2], ids=["from 0", "around 2^32"])
@pytest.mark.parametrize("span", [64, 200, 8 * ROW])
@pytest.mark.parametrize("kind", ["plain", "packed", "masked", "residual"])
@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("isa", FUSED_ISAS)
def test_pieces_give_the_bits_of_the_whole(isa: Isa, threads: int, kind: str, span: int, first: int) -> None:
    given = inputs(kind)
    words: Any = given.source
    dispatch = make_dispatch(isa, threads)
    ring = make_ring(first, 5 * 8 * ROW * 4)
    claim = streamed(words, span, ring)
    told: list[float] = []
    claim.on_arrival = lambda arrived_at, waited: told.extend((arrived_at, waited))
    sender = Sender(claim.passage, words)
    begin = time.perf_counter()
    got = run_pass(dispatch, replace(given, source=claim))
    assert_same(got, run_pass(make_dispatch(Isa.NUMPY, 1), given))
    sender.join(PATIENCE)
    assert int(ring.taken[0]) == int(ring.ready[0]) == (first + claim.passage.pieces) % PIECE_NUMBERS
    assert begin <= told[0] <= time.perf_counter() and told[1] >= 0
    assert claim.nbytes == words.nbytes
    dispatch.close()


@pytest.mark.parametrize("span", [2 * ROW, 4 * ROW, 8 * ROW])
@pytest.mark.parametrize("source", ["plain", "packed", "masked"])
@pytest.mark.parametrize("when", [0, 2**22], ids=["as it goes", "afterwards"])
@pytest.mark.parametrize("isa", FUSED_ISAS)
def test_pieces_are_pooled_as_the_whole_is(
    isa: Isa, when: int, source: str, span: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fused, "_POOLED_ELEMENTS", when)
    given = Form(source=source).draw()
    words: Any = given.source
    claim = streamed(words, span, make_ring(size=5 * 8 * ROW * 4))
    Sender(claim.passage, words)
    dispatch = make_dispatch(isa, 3)
    assert_same(run_pass(dispatch, replace(given, source=claim)), run_pass(make_dispatch(Isa.NUMPY, 1), given))
    dispatch.close()


def test_a_piece_never_ends_within_a_window() -> None:
    for form, span in ((Form(), ROW), (Form(), 3 * ROW), (Form(rows=UNEVEN), 4 * ROW)):
        given = form.draw()
        claim = streamed(given.source, span, make_ring(size=5 * 8 * ROW * 4))  # type: ignore[arg-type]
        with pytest.raises(ApiMisuse, match="within the rows of a window"):
            run_pass(make_dispatch(threads=1), replace(given, source=claim))


@pytest.mark.parametrize("isa", FUSED_ISAS)
def test_places_are_let_go_only_once_they_are_read(isa: Isa) -> None:
    """All four places are filled and the fifth piece never comes: the first four are free, and not one more."""
    given = inputs("plain")
    ring = make_ring(size=5 * 200 * 4)
    claim = streamed(given.source, 200, ring, patience=0.2)  # type: ignore[arg-type]
    ring.ready[0] = 4
    with pytest.raises(DeviceError, match=r"did not answer within 0\.2 seconds"):
        run_pass(make_dispatch(isa, 2), replace(given, source=claim))
    assert int(ring.taken[0]) == 4


@pytest.mark.parametrize("isa", FUSED_ISAS)
@pytest.mark.parametrize("pieces", [0, 3])
def test_the_end_is_told_to_who_waits(isa: Isa, pieces: int) -> None:
    given = inputs("masked")
    ring = make_ring(size=5 * 200 * 4)
    claim = streamed(given.source, 200, ring)  # type: ignore[arg-type]
    ring.ready[0] = pieces
    timer = threading.Timer(0.1, lambda: claim.end(DeviceError("the worker is gone for good")))
    timer.start()
    begin = time.monotonic()
    with pytest.raises(DeviceError, match="gone for good"):
        run_pass(make_dispatch(isa, 2), replace(given, source=claim))
    assert time.monotonic() - begin < PATIENCE / 2


@pytest.mark.parametrize("isa", FUSED_ISAS)
def test_who_waits_can_be_interrupted(isa: Isa) -> None:
    given = inputs("plain")
    claim = streamed(given.source, 200, make_ring(size=5 * 200 * 4))  # type: ignore[arg-type]
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a test run in the background ignores it
    timer = threading.Timer(0.3, lambda: os.kill(os.getpid(), signal.SIGINT))
    timer.start()
    begin = time.monotonic()
    try:
        with pytest.raises(KeyboardInterrupt):
            run_pass(make_dispatch(isa, 2), replace(given, source=claim))
        assert time.monotonic() - begin < PATIENCE / 2
    finally:
        timer.join()
        signal.signal(signal.SIGINT, before)


# ---------------------------------------------------------------- words that go


def going(shape: tuple[int, int], span: int, ring: Ring, patience: float = PATIENCE) -> StreamedWords:
    """A way for the words of a pass, of which nobody takes any yet."""
    return StreamedWords(Passage(ring, int(ring.ready[0]), *shape, span, False), patience)


class Receiver(threading.Thread):
    """Takes words piece by piece, and spoils each place just before it lets it go."""

    def __init__(self, passage: Passage) -> None:
        super().__init__(daemon=True)
        self.passage = passage
        self.words = np.zeros(passage.shape, np.int32)
        self.start()

    def run(self) -> None:
        ring = self.passage.ring
        for piece in self.passage.each():
            deadline = time.monotonic() + PATIENCE
            while not ring.has(piece.number) and time.monotonic() < deadline:
                time.sleep(0)
            self.words[:, piece.begin : piece.end] = piece.place
            piece.place[...] = 0x5A5A5A5A
            ring.taken[0] = (piece.number + 1) % PIECE_NUMBERS


def masked_inputs(kind: str) -> PassInput:
    """Passes that blind: of a claim, of an activation, and of a claim with another's activation added."""
    given, rng = inputs("masked"), np.random.default_rng(6)
    if kind == "activation":
        activation = rng.integers(-127, 128, given.shape).astype(np.int16)
        return replace(given, source=activation, mask_image=None, probes=(), program=None)
    if kind == "residual":
        both = inputs("residual")
        return replace(both, mask_image=draw_words(rng, both.shape), mask=draw_words(rng, both.shape))
    return given


@pytest.mark.parametrize("first", [0, PIECE_NUMBERS - 2], ids=["from 0", "around 2^32"])
@pytest.mark.parametrize("span", [64, 200, 8 * ROW])
@pytest.mark.parametrize("comes", ["whole", "pieces"])
@pytest.mark.parametrize("kind", ["masked", "residual", "activation"])
@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("isa", FUSED_ISAS)
def test_words_in_pieces_are_those_of_the_whole(
    isa: Isa, threads: int, kind: str, comes: str, span: int, first: int
) -> None:
    given = masked_inputs(kind)
    claims: Any = given.source
    wanted = run_pass(make_dispatch(Isa.NUMPY, 1), given)
    words = going(given.shape, span, make_ring(first, 5 * 8 * ROW * 4))
    receiver = Receiver(words.passage)
    if comes == "pieces" and kind != "activation":
        claim = streamed(claims, span, make_ring(first, 5 * 8 * ROW * 4))
        Sender(claim.passage, claims)
        given = replace(given, source=claim)
    dispatch = make_dispatch(isa, threads)
    got = run_pass(dispatch, given, blinded_out=words)
    receiver.join(PATIENCE)
    assert got.blinded is None
    assert_same(replace(got, blinded=receiver.words), wanted)
    assert words.nbytes == receiver.words.nbytes
    assert words.waited >= 0
    dispatch.close()


@pytest.mark.parametrize("isa", FUSED_ISAS)
def test_no_place_is_written_before_it_was_read(isa: Isa) -> None:
    """Nobody takes anything: four pieces lie there, and the fifth is written nowhere."""
    given = masked_inputs("masked")
    ring = make_ring(size=5 * 200 * 4)
    words = going(given.shape, 200, ring, patience=0.2)
    with pytest.raises(DeviceError, match=r"took none of its words within 0\.2 seconds"):
        run_pass(make_dispatch(isa, 2), given, blinded_out=words)
    assert int(ring.ready[0]) == PLACES
    whole = run_pass(make_dispatch(Isa.NUMPY, 1), given).blinded
    assert whole is not None
    for piece in list(words.passage.each())[:PLACES]:
        assert np.array_equal(piece.place, whole[:, piece.begin : piece.end])


@pytest.mark.parametrize("isa", FUSED_ISAS)
def test_the_end_is_told_to_who_cannot_write(isa: Isa) -> None:
    given = masked_inputs("masked")
    words = going(given.shape, 200, make_ring(size=5 * 200 * 4))
    timer = threading.Timer(0.1, lambda: words.end(DeviceError("the worker is gone for good")))
    timer.start()
    begin = time.monotonic()
    with pytest.raises(DeviceError, match="gone for good"):
        run_pass(make_dispatch(isa, 2), given, blinded_out=words)
    assert time.monotonic() - begin < PATIENCE / 2


def test_words_that_are_cut_otherwise_are_refused() -> None:
    given, dispatch = masked_inputs("masked"), make_dispatch(threads=1)
    claims: Any = given.source
    claim = streamed(claims, 64, make_ring(size=5 * 200 * 4))
    with pytest.raises(ApiMisuse, match="cut alike"):
        words = going(given.shape, 200, make_ring(size=5 * 200 * 4))
        run_pass(dispatch, replace(given, source=claim), blinded_out=words)
    with pytest.raises(ApiMisuse, match="another shape"):
        run_pass(dispatch, given, blinded_out=going((5, 8), 200, make_ring(size=5 * 200 * 4)))
    with pytest.raises(ApiMisuse, match="do not fit their places"):
        run_pass(dispatch, given, blinded_out=going(given.shape, 201, make_ring(size=5 * 200 * 4)))
    with pytest.raises(ApiMisuse, match="needs a mask"):
        run_pass(dispatch, replace(given, mask=None), blinded_out=going(given.shape, 64, make_ring()))


def test_who_reads_does_not_wait_for_ever() -> None:
    passage = Passage(make_ring(size=5 * 64 * 4), 0, 5, 500, 64, False)
    with pytest.raises(DeviceError, match="did not answer"):
        passage.read(0.1)
    with pytest.raises(DeviceError, match="nobody writes the pieces"):
        passage.read(PATIENCE, lambda: True)


# ---------------------------------------------------------------- a ring


def test_two_claims_share_a_ring_in_order() -> None:
    """Whoever writes the second waits for the first; whoever reads finds each behind the other."""
    ring = make_ring(size=5 * 64 * 4)
    words = [draw_words(np.random.default_rng(seed), (5, 500)) for seed in range(2)]
    passages = [Passage(ring, 8 * index, 5, 500, 64, False) for index in range(2)]
    writers = [
        threading.Thread(target=passage.write, args=(claim, PATIENCE), daemon=True)
        for passage, claim in zip(passages, words, strict=True)
    ]
    for writer in reversed(writers):
        writer.start()
    for passage, claim in zip(passages, words, strict=True):
        assert np.array_equal(StreamedClaim(passage, PATIENCE).gather(), claim)
    for writer in writers:
        writer.join(PATIENCE)


def test_who_writes_does_not_wait_for_ever() -> None:
    passage = Passage(make_ring(size=5 * 64 * 4), 0, 5, 500, 64, False)
    with pytest.raises(DeviceError, match="did not answer"):
        passage.write(np.zeros((5, 500), np.int32), 0.1)
    assert int(passage.ring.ready[0]) == PLACES


@pytest.mark.parametrize(
    "change",
    [
        lambda passage: replace(passage, span=0),
        lambda passage: replace(passage, span=400),
        lambda passage: replace(passage, batch=0),
        lambda passage: replace(passage, count=0),
        lambda passage: replace(passage, ring=Ring(np.zeros((3, 4000), np.uint8), *(np.zeros(1, np.uint32),) * 2)),
    ],
)
def test_pieces_that_do_not_fit_their_places_are_refused(change: Callable[[Passage], Passage]) -> None:
    given = inputs("plain")
    good = streamed(given.source, 200, make_ring(size=4000)).passage  # type: ignore[arg-type]
    with pytest.raises(ApiMisuse, match="do not fit their places"):
        run_pass(make_dispatch(threads=1), replace(given, source=StreamedClaim(change(good), 1.0)))
