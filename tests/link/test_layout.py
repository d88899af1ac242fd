"""Slots are enough: whatever the network, the level and the micro-batches, nobody ever waits for one."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

import reference.network
from slalom.link.layout import make_layout
from slalom.link.message import Bulk
from slalom.link.region import Slots
from slalom.plan import Plan
from slalom.plan.steps import Apply, Function, Graph, Linear, Output
from slalom.plan.steps import Layout as UserLayout
from slalom.session import Session
from tests.devices import GRAPH_NAMES, NumpyDevice, case_of, plan_of, same
from tests.graph_builder import Builder
from tests.link.lies import LEVELS
from tests.link.serving import PATIENCE, Servant, options_of, reach, wait_until

BATCHES = (2, 5, 1)  # the second makes the memory grow


class Watched(Slots):
    """Knows how many were in use at once, and refuses to let anybody wait.

    But for the last word of a claim in pieces, which comes when they are read, and lets go of what was asked about.
    """

    made: list[Watched]
    may_wait: bool

    def __init__(self, count: int) -> None:
        super().__init__(count)
        self.count, self.most = count, 0
        Watched.made.append(self)

    def lease(self, timeout_seconds: float) -> int:
        with self._changed:
            assert self._free or self.may_wait, "a lease would have waited"
            slot = super().lease(PATIENCE if self.may_wait else 0)
            self.most = max(self.most, self.count - len(self._free))
        return slot

    @property
    def in_use(self) -> int:
        return self.count - len(self._free)


@pytest.mark.parametrize("streams", [False, True], ids=["slots", "pieces"])
@pytest.mark.parametrize("micro_batches", [1, 2, 3])
@pytest.mark.parametrize("level", LEVELS, ids="-".join)
@pytest.mark.parametrize("name", GRAPH_NAMES)
def test_no_lease_waits_and_all_slots_come_back(
    name: str, level: tuple[str, str], micro_batches: int, streams: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("slalom.link.memory.Slots", Watched)
    Watched.made, Watched.may_wait = [], streams
    protection, schedule = level
    options = replace(options_of(Bulk.MEMFD, micro_batches=micro_batches), streams=streams)
    device = reach(lambda stream: Servant(NumpyDevice(), stream), options)
    with Session(plan_of(name), protection=protection, schedule=schedule, device=device, threads=1,
                 micro_batches=micro_batches) as session:  # fmt: skip
        for batch in BATCHES:
            images, expected = case_of(name, batch)
            assert same(session.run(images), expected)
        # the reader may be about to let go of the last answer
        assert wait_until(lambda: not any(slots.in_use for slots in Watched.made))
    assert len(Watched.made) >= 4 if micro_batches < 3 else len(Watched.made) >= 2
    assert any(slots.most for slots in Watched.made)


def branches_graph() -> tuple[Graph, dict[str, np.ndarray]]:
    """Five dense layers read the input; the claims of four wait while the fifth's branch goes on, two at a time."""
    b = Builder("branches", (16,), UserLayout.PLAIN, seed=8, bits=12)
    for index in range(5):
        b.linear(f"branch{index}", "image", b.dense(f"branch{index}", 16, 16))
    value = "branch0"
    for index in range(4):
        b.pointwise(f"hidden{index}", value, Apply(Function.RELU))
        for value in (f"side{index}", f"deep{index}"):
            b.linear(value, f"hidden{index}", b.dense(value, 16, 16))
        b.pointwise(f"end{index}", f"side{index}", real=True)
    for index in range(1, 5):
        b.pointwise(f"wide{index}", f"branch{index}", Apply(Function.RELU), real=True)
    b.pointwise("deep", value, real=True)
    waiting, ends = [f"wide{index}" for index in range(1, 5)], [f"end{index}" for index in range(4)]
    return b.graph(*(Output(name, UserLayout.PLAIN) for name in (*waiting, *ends, "deep")))


@pytest.mark.parametrize("level", LEVELS, ids="-".join)
@pytest.mark.parametrize("bulk", [Bulk.MEMFD, Bulk.INLINE], ids=lambda bulk: bulk.name.lower())
def test_a_claim_that_waits_keeps_its_slot(level: tuple[str, str], bulk: Bulk) -> None:
    plan = Plan(*branches_graph())
    images = np.random.default_rng(1).standard_normal((4, 16)).astype(np.float32)
    expected = reference.network.run(plan.graph, dict(plan.tensors), images)
    device = reach(lambda stream: Servant(NumpyDevice(), stream), options_of(bulk))
    protection, schedule = level
    with Session(plan, protection=protection, schedule=schedule, device=device, threads=1) as session:
        for _ in range(3):
            assert same(session.run(images), expected)


@pytest.mark.parametrize("name", GRAPH_NAMES)
def test_a_layout_is_what_the_plan_says(name: str) -> None:
    plan = plan_of(name)
    layout = make_layout(plan)
    linear = [step for step in plan.graph.steps if isinstance(step, Linear)]
    assert layout.digest.hex() == plan.digest
    assert list(layout.steps) == linear
    assert layout.positions == {step.name: index for index, step in enumerate(linear)}
    assert layout.input_shape == plan.graph.input.output.shape
    assert 1 <= layout.open_claims <= len(linear)
    assert all(layout.packs(index) == (step.output.bound < 2**23) for index, step in enumerate(linear))


@pytest.mark.parametrize("name", GRAPH_NAMES)
@pytest.mark.parametrize(("batch", "micro_batches"), [(1, 1), (7, 2), (64, 5)])
def test_every_value_has_room_in_a_slot(name: str, batch: int, micro_batches: int) -> None:
    layout = make_layout(plan_of(name))
    geometry = layout.geometry(batch, micro_batches)
    for shape in (layout.input_shape, *layout.sources.values()):
        assert batch * 4 * math.prod(shape) <= geometry.ask_size
    for shape in (*(step.output.shape for step in layout.steps), *layout.output_shapes):
        assert batch * 4 * math.prod(shape) <= geometry.claim_size
    assert geometry.ask_count > micro_batches
    assert geometry.claim_count >= micro_batches * len(layout.output_shapes)
    assert np.gcd(geometry.ask_size, geometry.claim_size) % 4096 == 0


@pytest.mark.parametrize("name", GRAPH_NAMES)
@pytest.mark.parametrize("batch", [1, 64, 10**5])
def test_the_words_of_every_ask_fit_the_places_of_their_ring(name: str, batch: int) -> None:
    layout = make_layout(plan_of(name))
    geometry = layout.geometry(batch, 2, streams=True, words=True)
    assert geometry.word_count > 0 or not layout.streams_asked & layout.streams_ahead
    for shape in layout.sources.values() if geometry.word_count else ():
        span = layout.word_span(math.prod(shape), batch, geometry.piece_size)
        assert span > 0 and batch * 4 * span <= geometry.piece_size
