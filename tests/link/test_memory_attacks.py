"""A hostile worker writes to the shared memory when it must not: the output is right, or there is none."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from slalom.errors import IntegrityError, SlalomError
from slalom.link.calls import CallAnswering
from slalom.link.channel import Channel
from slalom.link.message import Bulk, Header, Kind
from slalom.link.region import Region
from slalom.link.serve import Asked, Mouth, Served
from slalom.session import Session
from tests.devices import NumpyDevice, case_of, plan_of, same
from tests.link.lies import AHEAD, LAYERWISE, PRIVATE
from tests.link.serving import PATIENCE, Servant, nothing_left, options_of, reach

CHECKED = pytest.mark.parametrize("level", [AHEAD, LAYERWISE, PRIVATE], ids="-".join)
SHARED = pytest.mark.parametrize("bulk", [Bulk.MEMFD, Bulk.SHM], ids=lambda bulk: bulk.name.lower())
NETWORK = "residual"
TRIALS = 6


class Memory(CallAnswering):
    """Honest, with the memory at hand."""

    def __init__(self, served: Served, mouth: Mouth) -> None:
        super().__init__(served, mouth)
        self.mouth = mouth
        self.answered = 0

    @property
    def region(self) -> Region:
        assert self._region is not None
        return self._region

    @property
    def claims(self) -> np.ndarray:
        """All claim slots as they lie."""
        geometry = self.region.geometry
        return self.region.whole[geometry.ask_count * geometry.ask_size :]

    @property
    def asks(self) -> np.ndarray:
        """All ask slots."""
        geometry = self.region.geometry
        return self.region.whole[: geometry.ask_count * geometry.ask_size]


class Flipping(Memory):
    """A thread flips every byte of every claim slot between the truth and a lie, all the time."""

    def map(self, region: Region, batch: int) -> None:
        super().map(region, batch)
        self.stopped, self.flipped = threading.Event(), threading.Event()
        self.thread = threading.Thread(target=self._flip, name="slalom-flip", daemon=True)
        self.thread.start()

    def compute(self, asked: Asked) -> None:
        super().compute(asked)
        self._see_a_flip()

    def _see_a_flip(self) -> None:
        self.flipped.clear()
        self.flipped.wait(1)

    def _flip(self) -> None:
        claims = self.claims
        while not self.stopped.is_set():
            np.bitwise_xor(claims, 1, out=claims)
            self.flipped.set()
            self.stopped.wait(0.0001)  # half of the time there is a lie, and half of the time the truth

    def stop(self) -> None:
        super().stop()
        if hasattr(self, "stopped"):
            self.stopped.set()


class RewritesClaims(Memory):
    """Writes noise over all claims of before as soon as the next ask shows that they were checked."""

    def compute(self, asked: Asked) -> None:
        self.claims.fill(0xA5)
        super().compute(asked)

    def say(self, header: Header) -> None:
        if header.kind is Kind.PONG:
            self.claims.fill(0xA5)
        super().say(header)


class RewritesAsks(Memory):
    """Writes noise over what it was given before it answers."""

    def compute(self, asked: Asked) -> None:
        super().compute(self._taken(asked))

    def run_ahead(self, asked: Asked) -> None:
        super().run_ahead(self._taken(asked))

    @staticmethod
    def _taken(asked: Asked) -> Asked:
        words = asked.words.copy()
        asked.words.fill(-7)
        return replace(asked, words=words)


def lies_in_memory(write: Callable[[Memory], None]) -> type[Memory]:
    """A worker whose headers are right and whose memory is not: written to just before an answer's header goes."""

    class Liar(Memory):
        def __init__(self, served: Served, mouth: Mouth) -> None:
            super().__init__(served, mouth)
            honest = mouth.answer

            def answer(header: Header, given: np.ndarray) -> None:
                self.answered += 1
                if self.answered == 2:
                    write(self)
                honest(header, given)

            mouth.answer = answer  # type: ignore[method-assign]

    return Liar


def _one_bit(memory: Memory) -> None:
    slots = memory.claims.reshape(-1, memory.region.geometry.claim_size)
    slots[:, 1] ^= 1


LIES = {
    "one bit in every slot": _one_bit,
    "zeros in every slot": lambda memory: memory.claims.fill(0),
    "noise in every slot": lambda memory: np.copyto(
        memory.claims, np.frombuffer(np.random.default_rng(3).bytes(memory.claims.size), np.uint8)
    ),
    "slots moved on by one": lambda memory: np.copyto(
        memory.claims, np.roll(memory.claims, memory.region.geometry.claim_size)
    ),
    "words moved on by one": lambda memory: np.copyto(memory.claims, np.roll(memory.claims, 4)),
}


def run(
    answering: type[Memory], level: tuple[str, str], bulk: Bulk, micro_batches: int = 2
) -> type[SlalomError] | None:
    """The error of one request, or None where its output was right."""
    images, expected = case_of(NETWORK, 4)

    def servant(stream: object) -> Servant:
        return Servant(NumpyDevice(), stream, lambda s: Channel(s, PATIENCE), answering)  # type: ignore[arg-type]

    device = reach(servant, options_of(bulk, micro_batches=micro_batches))
    protection, schedule = level
    with Session(plan_of(NETWORK), protection=protection, schedule=schedule, device=device, threads=1,
                 micro_batches=micro_batches) as session:  # fmt: skip
        for _ in range(2):
            try:
                outputs = session.run(images)
            except SlalomError as error:
                return type(error)
            assert same(outputs, expected)
    return None


@CHECKED
@SHARED
def test_claims_that_change_all_the_time_are_right_or_refused(level: tuple[str, str], bulk: Bulk) -> None:
    with nothing_left():
        outcomes = [run(Flipping, level, bulk) for _ in range(TRIALS)]
    assert set(outcomes) <= {None, IntegrityError}


@pytest.mark.parametrize("level", [LAYERWISE, PRIVATE], ids="-".join)
@SHARED
def test_claims_rewritten_after_their_check_change_nothing(level: tuple[str, str], bulk: Bulk) -> None:
    with nothing_left():
        assert run(RewritesClaims, level, bulk, micro_batches=1) is None


@CHECKED
@SHARED
def test_asks_rewritten_by_the_worker_change_nothing(level: tuple[str, str], bulk: Bulk) -> None:
    with nothing_left():
        assert run(RewritesAsks, level, bulk) is None


@CHECKED
@pytest.mark.parametrize("lie", LIES)
def test_right_headers_over_wrong_memory_are_refused(lie: str, level: tuple[str, str]) -> None:
    with nothing_left():
        assert run(lies_in_memory(LIES[lie]), level, Bulk.MEMFD) is IntegrityError
