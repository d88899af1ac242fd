"""Claims that come in pieces: the same bits at every level, and no piece that is read before or after its time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partialmethod
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import reference.network
from slalom.arithmetic.pieces import Passage, Ring, StreamedClaim
from slalom.errors import ApiMisuse, DeviceError, IntegrityError, SlalomError
from slalom.link import layout as layouts
from slalom.link.calls import CallAnswering
from slalom.link.channel import Channel, ChannelClosedError
from slalom.link.message import Bulk, Errand, Geometry, Header
from slalom.link.queued import QueuedAnswering
from slalom.link.region import Region
from slalom.link.serve import Answering, Asked, Mouth, Served
from slalom.plan import Plan
from slalom.session import Session
from tests.devices import GRAPH_NAMES, NumpyDevice, case_of, plan_of, same
from tests.link.lies import AHEAD, LAYERWISE, LEVELS, PRIVATE
from tests.link.serving import PATIENCE, Servant, nothing_left, options_of, reach, wait_until
from tests.link.test_layout import branches_graph
from tests.link.test_queued import SlotNumpy

ANSWERINGS: dict[str, tuple[type[NumpyDevice], Callable[[Served, Mouth], Answering]]] = {
    "called": (NumpyDevice, CallAnswering),
    "queued": (SlotNumpy, QueuedAnswering),
}


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """So small that every claim takes several, and the ring comes round."""
    monkeypatch.setattr(layouts, "_PIECE_SIZE", 4096)
    monkeypatch.setattr(layouts, "_GRAIN", 16)


@pytest.mark.parametrize("isa", ["numpy", None])
@pytest.mark.parametrize("answering", ANSWERINGS)
@pytest.mark.parametrize("level", LEVELS, ids="-".join)
@pytest.mark.parametrize("name", GRAPH_NAMES)
def test_every_level_is_right(name: str, level: tuple[str, str], answering: str, isa: str | None) -> None:
    make, way = ANSWERINGS[answering]
    device = make()
    options = replace(options_of(Bulk.MEMFD, micro_batches=3), streams=True)
    remote = reach(lambda stream: Servant(device, stream, lambda s: Channel(s, PATIENCE), way), options)
    protection, schedule = level
    with (
        nothing_left(),
        Session(plan_of(name), protection=protection, schedule=schedule, device=remote, threads=2, isa=isa,
                micro_batches=3) as session,
    ):  # fmt: skip
        for batch in (2, 61, 1):
            images, expected = case_of(name, batch)
            assert same(session.run(images), expected)
        if isinstance(device, SlotNumpy):
            device.pool.shutdown()


@pytest.mark.parametrize("level", LEVELS, ids="-".join)
def test_a_claim_that_waits_for_others_has_a_slot(level: tuple[str, str]) -> None:
    """Five layers read one value, and later ones are read first: what came through the ring would hold them up."""
    plan = Plan(*branches_graph())
    layout = layouts.make_layout(plan)
    assert 0 < len(layout.streams_ahead) < len(layout.steps)
    assert 0 < len(layout.streams_asked) < len(layout.steps)
    images = np.random.default_rng(1).standard_normal((64, 16)).astype(np.float32)
    expected = reference.network.run(plan.graph, dict(plan.tensors), images)
    device = reach(lambda stream: Servant(NumpyDevice(), stream), replace(options_of(Bulk.MEMFD), streams=True))
    protection, schedule = level
    with Session(plan, protection=protection, schedule=schedule, device=device, threads=1) as session:
        for _ in range(2):
            assert same(session.run(images), expected)


@pytest.mark.parametrize("level", LEVELS, ids="-".join)
@pytest.mark.parametrize("name", GRAPH_NAMES)
def test_a_claim_whose_pieces_would_not_fit_has_a_slot(
    name: str, level: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every second step: also where one ask wants claims of both kinds, of which those with slots come first."""
    fitting = layouts.Layout.span
    monkeypatch.setattr(
        layouts.Layout, "span", lambda self, position, *sizes: fitting(self, position, *sizes) * (position % 2)
    )
    monkeypatch.setattr(layouts.Layout, "geometry", partialmethod(whole_slots, layouts.Layout.geometry))
    device = reach(lambda stream: Servant(NumpyDevice(), stream), replace(options_of(Bulk.MEMFD), streams=True))
    protection, schedule = level
    images, expected = case_of(name, 61)
    with Session(plan_of(name), protection=protection, schedule=schedule, device=device, threads=1) as session:
        assert same(session.run(images), expected)


def whole_slots(layout: layouts.Layout, geometry: Callable[..., Geometry], *sizes: int, **how: Any) -> Geometry:
    """Room in slots for every claim, beside the ring."""
    ring = geometry(layout, *sizes, **how)
    slots = geometry(layout, *sizes)
    return replace(slots, ask_count=ring.ask_count, piece_count=ring.piece_count, piece_size=ring.piece_size)


def test_claims_do_come_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests above are about what they say: each claim takes several pieces, and the ring comes round."""
    passages: list[Passage] = []

    def take(self: StreamedClaim, *told: Any) -> None:
        passages.append(self.passage)

    monkeypatch.setattr(StreamedClaim, "settle", take)
    device = reach(lambda stream: Servant(NumpyDevice(), stream), replace(options_of(Bulk.MEMFD), streams=True))
    images, expected = case_of("residual", 61)
    with Session(plan_of("residual"), protection="private", device=device, threads=1) as session:
        assert same(session.run(images), expected)
    assert len(passages) == 2 * len(layouts.make_layout(plan_of("residual")).steps)
    assert sum(passage.pieces for passage in passages) > 4 * 4


class Early(CallAnswering):
    """Says that everything is there before it is."""

    def compute(self, asked: Asked) -> None:
        assert self._region is not None
        self._region.claim_ring().ready[0] = 2**30
        super().compute(asked)


class Never(CallAnswering):
    """Answers, and puts nothing into the ring."""

    def _pour(self, asked: Header, errand: Errand, given: NDArray[Any]) -> None:
        """Nothing."""


class Gone(CallAnswering):
    """Ends in the middle of a claim."""

    def _pour(self, asked: Header, errand: Errand, given: NDArray[Any]) -> None:
        raise ChannelClosedError("gone")


class Flipping(CallAnswering):
    """A thread flips a bit of every byte of the ring between the truth and a lie, all the time."""

    def map(self, region: Region, batch: int) -> None:
        super().map(region, batch)
        self.stopped = threading.Event()
        self.places = region.claim_ring().places
        threading.Thread(target=self._flip, name="slalom-flip", daemon=True).start()

    def _flip(self) -> None:
        while not self.stopped.is_set():
            np.bitwise_xor(self.places, 1, out=self.places)
            self.stopped.wait(0.0001)

    def stop(self) -> None:
        super().stop()
        self.stopped.set()


@pytest.mark.parametrize("level", [AHEAD, LAYERWISE, PRIVATE], ids="-".join)
def test_pieces_that_change_all_the_time_are_right_or_refused(level: tuple[str, str]) -> None:
    images, expected = case_of("residual", 61)
    outcomes: set[type[SlalomError] | None] = set()
    options = replace(options_of(Bulk.MEMFD), streams=True)
    protection, schedule = level
    for _ in range(6):
        device = reach(lambda stream: Servant(NumpyDevice(), stream, lambda s: Channel(s, PATIENCE), Flipping), options)
        with Session(
            plan_of("residual"), protection=protection, schedule=schedule, device=device, threads=2
        ) as session:
            try:
                assert same(session.run(images), expected)
                outcomes.add(None)
            except SlalomError as error:
                outcomes.add(type(error))
    assert outcomes <= {None, IntegrityError}


@pytest.mark.parametrize(
    ("hostile", "error"),
    [(Early, IntegrityError), (Never, DeviceError), (Gone, DeviceError)],
    ids=["early", "never", "gone"],
)
def test_a_hostile_ring_is_refused(hostile: type[CallAnswering], error: type[SlalomError]) -> None:
    options = replace(options_of(Bulk.MEMFD, timeout_seconds=1.0), streams=True)
    device = reach(lambda stream: Servant(NumpyDevice(), stream, lambda s: Channel(s, 1.0), hostile), options)
    images, _ = case_of("residual", 61)
    begin = time.monotonic()
    with nothing_left(), Session(plan_of("residual"), protection="private", device=device, threads=1) as session:
        with pytest.raises(error):
            session.run(images)
        with pytest.raises(ApiMisuse, match="the session is over"):
            session.run(images)
    assert time.monotonic() - begin < PATIENCE


def test_a_device_in_this_process_gives_no_claim_in_pieces() -> None:
    """It would be an object of the device's own, and could say one thing to the check and another to the network."""

    class Sly(NumpyDevice):
        def compute(self, step_names: Sequence[str], words: NDArray[Any]) -> Any:
            zeros = np.zeros(1, np.uint32)
            ring = Ring(np.zeros((1, 4096), np.uint8), np.ones(1, np.uint32), zeros)
            return [StreamedClaim(Passage(ring, 0, len(words), 1, 1, False), 1.0) for _ in step_names]

    images, _ = case_of("residual", 2)
    with (
        Session(plan_of("residual"), protection="private", device=Sly(), threads=1) as session,
        pytest.raises(IntegrityError, match="is not an array"),
    ):
        session.run(images)


def test_a_queued_device_does_not_wait_for_who_left() -> None:
    """The ring is full and nobody reads it any more: what would fill it further is let go at once."""
    device = SlotNumpy()
    options = replace(options_of(Bulk.MEMFD), streams=True)
    remote = reach(lambda stream: Servant(device, stream, lambda s: Channel(s, PATIENCE), QueuedAnswering), options)
    layout = layouts.make_layout(plan_of("every_step"))
    step = layout.steps[0]
    words = np.zeros((61, *layout.sources[step.name]), np.int32)
    with nothing_left():
        remote.load(plan_of("every_step"))
        remote.submit([step.name], words)
        begin = time.monotonic()
        remote.close()
        assert wait_until(lambda: device.mapped == 0)
        assert time.monotonic() - begin < PATIENCE / 4
        device.pool.shutdown()
        del remote


def test_memory_does_not_grow_while_claims_are_under_way() -> None:
    """Whoever asks for more than the largest batch so far would leave pieces behind that nobody reads."""
    device = reach(lambda stream: Servant(NumpyDevice(), stream), replace(options_of(Bulk.MEMFD), streams=True))
    device.load(plan_of("dense"))
    layout = layouts.make_layout(plan_of("dense"))
    step = layout.steps[0]
    words = np.zeros((4, *layout.sources[step.name]), np.int32)
    device.submit([step.name], words)
    with pytest.raises(ApiMisuse, match="the batch grows while claims are under way"):
        device.submit([step.name], np.concatenate([words, words]))
    device.close()
