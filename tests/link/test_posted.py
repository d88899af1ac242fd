"""Words that go to the device in pieces as a pass makes them: the same bits, when they may, and nothing that hangs."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray

from slalom.arithmetic.pieces import Passage
from slalom.errors import ApiMisuse, DeviceError, IntegrityError, SlalomError, WireError
from slalom.link import layout as layouts
from slalom.link.asks import Asks
from slalom.link.calls import CallAnswering
from slalom.link.channel import Channel
from slalom.link.conversation import Message
from slalom.link.message import NO_SLOT, Bulk, Element, Header, Kind, encode_span
from slalom.link.port import Place
from slalom.link.queued import QueuedAnswering
from slalom.link.remote import RemoteDevice
from slalom.link.ticket import Post, Ticket
from slalom.session import Session
from tests.devices import GRAPH_NAMES, case_of, plan_of, same
from tests.link.lies import BLINDED, PRIVATE
from tests.link.serving import PATIENCE, Servant, nothing_left, options_of, reach, wait_until
from tests.link.test_queued import SlotNumpy

THREADS = layouts._MANY_THREADS
BATCH = 60  # two micro-batches of equal size


class Posted(NamedTuple):
    """An ask that was posted: its steps, the number of its first piece, how many it has."""

    steps: tuple[str, ...]
    first: int
    pieces: int


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """So small that most words take several, and the ring comes round."""
    monkeypatch.setattr(layouts, "_PIECE_SIZE", 4096)
    monkeypatch.setattr(layouts, "_GRAIN", 16)


@pytest.fixture
def posts(monkeypatch: pytest.MonkeyPatch) -> list[Posted]:
    """What is posted from now on."""
    made: list[Posted] = []
    post = RemoteDevice.post

    def noted(self: RemoteDevice, step_names: Sequence[str], shape: tuple[int, ...]) -> Post | None:
        found = post(self, step_names, shape)
        if found is not None:
            passage = found.words.passage  # not kept: it holds the memory
            made.append(Posted(tuple(step_names), passage.first, passage.pieces))
        return found

    monkeypatch.setattr(RemoteDevice, "post", noted)
    return made


def open_session(
    device: Any, name: str, level: tuple[str, str] = PRIVATE, timeout_seconds: float = PATIENCE, **arguments: Any
) -> Session:
    options = options_of(Bulk.MEMFD, timeout_seconds, arguments.get("micro_batches", 2))
    options = replace(options, threads=arguments.get("threads", THREADS))
    remote = reach(
        lambda stream: Servant(device, stream, lambda s: Channel(s, timeout_seconds), QueuedAnswering, streams=True),
        options,
    )
    protection, schedule = level
    told: dict[str, Any] = {"protection": protection, "schedule": schedule, "threads": THREADS, **arguments}
    return Session(plan_of(name), device=remote, timeout_seconds=timeout_seconds, **told)


@pytest.mark.parametrize("isa", ["numpy", None])
@pytest.mark.parametrize("micro_batches", [1, 2, 4])
@pytest.mark.parametrize("level", [PRIVATE, BLINDED], ids="-".join)
@pytest.mark.parametrize("name", GRAPH_NAMES)
def test_every_network_is_right(
    name: str, level: tuple[str, str], micro_batches: int, isa: str | None, posts: list[Posted]
) -> None:
    """From the second request on, where the device has answered every ask once."""
    device = SlotNumpy()
    with nothing_left(), open_session(device, name, level, micro_batches=micro_batches, isa=isa) as session:
        for seed in range(3):
            images, expected = case_of(name, BATCH, seed)
            assert same(session.run(images), expected)
            asks = len(set(plan_sources(name)))
            assert len(posts) == seed * micro_batches * asks
        stop(device)


def plan_sources(name: str) -> Iterator[str]:
    """The values that linear steps read."""
    return (step.source for step in layouts.make_layout(plan_of(name)).steps)


def stop(device: SlotNumpy) -> None:
    device.pool.shutdown()
    device.gatherer.shutdown()


def test_they_take_several_pieces_and_the_ring_comes_round(posts: list[Posted]) -> None:
    device = SlotNumpy()
    with open_session(device, "residual") as session:
        for seed in range(2):
            session.run(case_of("residual", BATCH, seed)[0])
    assert max(posted.pieces for posted in posts) > 4
    assert posts[-1].first > 4
    stop(device)


def test_a_batch_that_changes_is_not_posted_at_first(posts: list[Posted]) -> None:
    """A device may have to make ready for a size that it was not asked before, or not lately."""
    device = SlotNumpy()
    with open_session(device, "residual") as session:
        for batch, is_posted in (
            (60, False),
            (60, True),
            (20, False),
            (60, False),
            (60, True),
            (61, False),
            (61, False),
        ):
            posts.clear()
            images, expected = case_of("residual", batch)
            assert same(session.run(images), expected)
            assert bool(posts) == is_posted, batch
    stop(device)


@pytest.mark.parametrize(
    "arguments",
    [
        {"threads": THREADS - 1},
        {"micro_batches": 5},
        {"protection": "verified", "schedule": "layerwise"},
        {"check": "direct"},
    ],
    ids=lambda arguments: "-".join(f"{key}={value}" for key, value in arguments.items()),
)
def test_when_nothing_is_posted(arguments: dict[str, Any], posts: list[Posted]) -> None:
    """Few threads write faster elsewhere; many micro-batches would wait for each other in the device; what is plain
    has no mask; with probes for each item no single pass writes all words."""
    device = SlotNumpy()
    with open_session(device, "residual", **arguments) as session:
        for seed in range(3):
            images, expected = case_of("residual", BATCH, seed)
            assert same(session.run(images), expected)
    assert not posts
    stop(device)


def test_what_would_fill_the_queues_of_a_gpu_is_not_posted(
    monkeypatch: pytest.MonkeyPatch, posts: list[Posted]
) -> None:
    monkeypatch.setattr(layouts, "_QUEUED_PIECES", 2)
    device = SlotNumpy()
    with open_session(device, "residual") as session:
        for seed in range(2):
            images, expected = case_of("residual", BATCH, seed)
            assert same(session.run(images), expected)
    assert not posts
    stop(device)


def test_a_device_that_does_not_say_so_is_sent_none(posts: list[Posted]) -> None:
    device = SlotNumpy()
    remote = reach(
        lambda stream: Servant(device, stream, lambda s: Channel(s, PATIENCE), QueuedAnswering),
        replace(options_of(Bulk.MEMFD), streams=True, threads=THREADS),
    )
    with Session(plan_of("residual"), protection="private", device=remote, threads=THREADS) as session:
        for seed in range(2):
            session.run(case_of("residual", BATCH, seed)[0])
    assert not posts
    stop(device)


@pytest.mark.parametrize("answering", [CallAnswering, QueuedAnswering])
def test_a_worker_that_takes_none_refuses_them(answering: Any) -> None:
    """Whatever it said: one that answers call by call, and one whose device cannot."""

    class Modest(SlotNumpy):
        streams = False

    device = Modest()
    servants: list[Servant] = []

    def start(stream: Any) -> Servant:
        servants.append(Servant(device, stream, lambda s: Channel(s, PATIENCE), answering, streams=True))
        return servants[0]

    remote = reach(start, replace(options_of(Bulk.MEMFD), threads=THREADS))
    with Session(plan_of("residual"), protection="private", device=remote, threads=THREADS) as session:
        images, expected = case_of("residual", BATCH)
        assert same(session.run(images), expected)
        with pytest.raises(DeviceError, match="did not understand"):
            session.run(images)
    assert wait_until(lambda: bool(servants[0].errors)) and isinstance(servants[0].errors[0], WireError)
    stop(device)


MALFORMED: dict[str, Callable[[Header], Header]] = {
    "no items": lambda header: replace(header, batch=0, size=0),
    "one byte more": lambda header: replace(header, size=header.size + 1),
    "activations": lambda header: replace(header, element=Element.INT16),
}


@pytest.mark.parametrize("name", [*MALFORMED, "no span", "a span larger than a place"])
def test_a_worker_refuses_an_ask_that_no_trusted_side_makes(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In memory that has the ring, and from a device that takes words so."""
    message = Asks.message

    def spoiled(self: Asks, *said: Any) -> Message:
        made = message(self, *said)
        if made.header.kind is not Kind.COMPUTE or made.header.slot != NO_SLOT:
            return made
        if name in MALFORMED:
            return replace(made, header=MALFORMED[name](made.header))
        return replace(made, parts=[made.parts[0], encode_span(0 if name == "no span" else 2**20)])

    monkeypatch.setattr(Asks, "message", spoiled)
    device = SlotNumpy()
    with open_session(device, "residual") as session:
        images, expected = case_of("residual", BATCH)
        assert same(session.run(images), expected)
        with pytest.raises(DeviceError, match="did not understand"):
            session.run(images)
    stop(device)


# ---------------------------------------------------------------- devices that do something else with them


class Hasty(SlotNumpy):
    """Says that everything was read before it was."""

    hasty = False

    def gather(self, words: Place, shape: tuple[int, ...]) -> Callable[[], NDArray[Any]]:
        if isinstance(words, Passage):
            self.hasty = True
            words.ring.taken[0] = words.first + words.pieces
            time.sleep(0.05)  # what is read now may be other words than those that were to be read
        return super().gather(words, shape)


class Stuck(SlotNumpy):
    """Takes no words that come in pieces."""

    def gather(self, words: Place, shape: tuple[int, ...]) -> Callable[[], NDArray[Any]]:
        if isinstance(words, Passage):
            return self.gatherer.submit(lambda: np.zeros((words.batch, *shape), np.int32)).result
        return super().gather(words, shape)


class Dropping(SlotNumpy):
    """Fails once words come in pieces."""

    def gather(self, words: Place, shape: tuple[int, ...]) -> Callable[[], NDArray[Any]]:
        if isinstance(words, Passage):
            raise RuntimeError("no more memory on the device")
        return super().gather(words, shape)


@pytest.mark.parametrize(
    ("hostile", "errors"),
    [(Hasty, (IntegrityError,)), (Stuck, (DeviceError, IntegrityError)), (Dropping, (DeviceError,))],
)
@pytest.mark.parametrize("isa", ["numpy", None])
def test_what_a_device_does_with_them_is_refused_or_right(
    hostile: type[SlotNumpy], errors: tuple[type[SlalomError], ...], isa: str | None
) -> None:
    device = hostile()
    with nothing_left(), open_session(device, "residual", timeout_seconds=1.0, isa=isa) as session:
        images, expected = case_of("residual", BATCH)
        assert same(session.run(images), expected)
        begin = time.monotonic()
        try:
            outputs = session.run(images)
        except errors:
            with pytest.raises(ApiMisuse, match="the session is over"):
                session.run(images)
        else:
            assert hostile is Hasty and same(outputs, expected)
        assert time.monotonic() - begin < PATIENCE
        session.close()
        stop(device)


def test_a_device_that_takes_none_is_an_error_that_says_so() -> None:
    """Its claims would be refused; before that the pass stands still, for the words have nowhere to go."""

    class Idle(Stuck):
        def linear(self, step: Any, words: NDArray[Any]) -> NDArray[Any]:
            if not words.any():
                time.sleep(3.0)
            return super().linear(step, words)

    device = Idle()
    with open_session(device, "residual", timeout_seconds=0.5) as session:
        images, expected = case_of("residual", BATCH)
        assert same(session.run(images), expected)
        with pytest.raises(DeviceError, match=r"took none of its words within 0\.5 seconds"):
            session.run(images)
    stop(device)


# ---------------------------------------------------------------- a thread that serves and waits


class Waiting(SlotNumpy):
    """Begins an exchange only once the ones before are done, as a GPU does that makes kernels ready."""

    def begin_compute(self, step_names: Sequence[str], words: Place, outs: Sequence[Place]) -> Sequence[Any]:
        for wait in getattr(self, "before", ()):
            wait()
        self.before = super().begin_compute(step_names, words, outs)
        return self.before


def ask(device: SlotNumpy, count: int) -> tuple[RemoteDevice, list[Ticket]]:
    """Asks for a claim in pieces so often, and takes none."""
    remote = reach(
        lambda stream: Servant(device, stream, lambda s: Channel(s, PATIENCE), QueuedAnswering),
        replace(options_of(Bulk.MEMFD), streams=True),
    )
    layout = layouts.make_layout(plan_of("every_step"))
    step = layout.steps[0]
    words = np.zeros((61, *layout.sources[step.name]), np.int32)
    remote.load(plan_of("every_step"))
    return remote, [remote.submit([step.name], words) for _ in range(count)]


class Synchronising(SlotNumpy):
    """Lets memory go only once all that was begun is done, as a GPU does."""

    def begin_compute(self, step_names: Sequence[str], words: Place, outs: Sequence[Place]) -> Sequence[Any]:
        self.begun = [*getattr(self, "begun", ()), *super().begin_compute(step_names, words, outs)]
        return self.begun[-len(outs) :]

    def unmap_memory(self) -> None:
        for wait in self.begun:
            wait()
        super().unmap_memory()


def test_pieces_are_let_go_until_the_memory_is() -> None:
    """Whoever left may have written its counter last: once is not enough, and the thread that sends may be gone."""
    device = Synchronising()
    with nothing_left():
        remote, tickets = ask(device, 4)
        assert remote._memory is not None and remote._memory.ring is not None
        taken = remote._memory.ring.taken
        remote.close()
        end = time.monotonic() + 0.5
        while time.monotonic() < end:
            taken[0] = 0
            time.sleep(0)
        del taken
        assert wait_until(lambda: device.mapped == 0, PATIENCE / 4)
        stop(device)
        device.begun = []
        del remote, tickets


def test_a_worker_whose_thread_waits_lets_go_of_who_left() -> None:
    """The thread that serves waits for pieces to be read, by somebody who is gone: another one notices."""
    device = Waiting()
    with nothing_left():
        remote, tickets = ask(device, 2)
        begin = time.monotonic()
        remote.close()
        assert wait_until(lambda: device.mapped == 0)
        assert time.monotonic() - begin < PATIENCE / 4
        stop(device)
        device.before = ()
        del remote, tickets
