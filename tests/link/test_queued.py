"""A device that works beside who asks it: the same answers, in order, and failures that are told."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from slalom.arithmetic.fused import pack_claims
from slalom.arithmetic.pieces import Passage
from slalom.errors import ApiMisuse, DeviceError
from slalom.link.channel import Channel
from slalom.link.layout import make_layout
from slalom.link.message import Accelerator, Bulk
from slalom.link.port import Place, SlotDevice
from slalom.link.queued import QueuedAnswering
from slalom.link.serve import Mouth
from slalom.plan.footprint import gpu_footprint
from slalom.plan.steps import Linear
from slalom.session import Session
from tests.devices import GRAPH_NAMES, NumpyDevice, case_of, plan_of, same
from tests.link.lies import LEVELS, PRIVATE
from tests.link.serving import PATIENCE, Servant, nothing_left, options_of, reach, served, wait_until


def put(out: Place, words: NDArray[Any]) -> None:
    if isinstance(out, Passage):
        out.write(pack_claims(words) if out.packed else words, PATIENCE)
    else:
        np.copyto(out, pack_claims(words) if out.dtype == np.uint8 else words)


class Run:
    """A network under way in a thread."""

    def __init__(self, claims: Future[list[NDArray[Any]]], pool: ThreadPoolExecutor) -> None:
        self._claims = claims
        self._pool = pool

    def give(self, position: int, out: Place) -> Callable[[], None]:
        return self._pool.submit(lambda: put(out, self._claims.result()[position])).result


class SlotNumpy(NumpyDevice):
    """Writes answers where it is told, from threads of its own."""

    streams = True

    def __init__(self) -> None:
        self.mapped = 0
        self.pool = ThreadPoolExecutor(2, "slots")
        self.gatherer = ThreadPoolExecutor(1, "words")

    def map_memory(self, memory: NDArray[np.uint8], batch: int) -> None:
        self.mapped += 1

    def unmap_memory(self) -> None:
        self.mapped -= 1

    def begin_compute(
        self, step_names: Sequence[str], words: Place, outs: Sequence[Place]
    ) -> Sequence[Callable[[], None]]:
        steps = [self.linear_steps[name] for name in step_names]
        given = self.gather(words, self.plan.types[steps[0].source].shape)
        pairs = zip(steps, outs, strict=True)
        return [self.pool.submit(lambda s=s, o=o: put(o, self.linear(s, given()))).result for s, o in pairs]

    def gather(self, words: Place, shape: tuple[int, ...]) -> Callable[[], NDArray[Any]]:
        """What gives the words, once those in pieces have come to a thread of their own."""
        if not isinstance(words, Passage):
            return lambda: words
        return self.gatherer.submit(lambda: words.read(PATIENCE).reshape(words.batch, *shape)).result

    def begin_ahead(self, activation: NDArray[np.int16]) -> Run:
        return Run(self.pool.submit(lambda: [claim.words for claim in self.run_ahead(activation)]), self.pool)


class Failing(SlotNumpy):
    """Fails in a thread of its own."""

    def linear(self, step: Linear, words: NDArray[Any]) -> NDArray[Any]:
        if step.name == "conv2":
            raise RuntimeError("no more memory on the device")
        return super().linear(step, words)


def run(device: SlotNumpy, name: str, level: tuple[str, str], bulk: Bulk) -> bool:
    remote = reach(
        lambda stream: Servant(device, stream, lambda s: Channel(s, PATIENCE), QueuedAnswering), options_of(bulk)
    )
    protection, schedule = level
    with Session(plan_of(name), protection=protection, schedule=schedule, device=remote, threads=1) as session:
        for batch in (2, 5):
            images, expected = case_of(name, batch)
            assert same(session.run(images), expected)
    return True


@pytest.mark.parametrize("bulk", [Bulk.MEMFD, Bulk.INLINE], ids=lambda bulk: bulk.name.lower())
@pytest.mark.parametrize("level", LEVELS, ids="-".join)
@pytest.mark.parametrize("name", GRAPH_NAMES)
def test_every_level_is_right(name: str, level: tuple[str, str], bulk: Bulk) -> None:
    device = SlotNumpy()
    assert isinstance(device, SlotDevice)
    with nothing_left():
        run(device, name, level, bulk)
        device.pool.shutdown()
    assert device.mapped == 0


@pytest.mark.parametrize("level", LEVELS, ids="-".join)
def test_a_failure_in_a_thread_is_told(level: tuple[str, str]) -> None:
    device = Failing()
    with nothing_left():
        with pytest.raises(DeviceError, match="the worker failed to compute"):
            run(device, "residual", level, Bulk.MEMFD)
        device.pool.shutdown()


class Small(SlotNumpy):
    """Has no room for a batch of more than two."""

    def map_memory(self, memory: NDArray[np.uint8], batch: int) -> None:
        if batch > 2:
            raise MemoryError("the plan takes up to 9.0 GB, and 1.0 GB are free")
        super().map_memory(memory, batch)

    def begin_compute(
        self, step_names: Sequence[str], words: Place, outs: Sequence[Place]
    ) -> Sequence[Callable[[], None]]:
        assert words.shape[0] <= 2, "what does not fit was begun"
        return super().begin_compute(step_names, words, outs)

    def begin_ahead(self, activation: NDArray[np.int16]) -> Run:
        assert len(activation) <= 2, "what does not fit was begun"
        return super().begin_ahead(activation)


@pytest.mark.parametrize("level", LEVELS, ids="-".join)
@pytest.mark.parametrize("accelerator", Accelerator)
def test_what_does_not_fit_is_refused_before_it_begins(level: tuple[str, str], accelerator: Accelerator) -> None:
    """Behind a GPU with the size that the plan is said to take there, from this side's own plan."""
    device, servants = Small(), []

    def start(stream: Any) -> Servant:
        servants.append(Servant(device, stream, lambda s: Channel(s, PATIENCE), QueuedAnswering))
        servants[0].accelerator = accelerator
        return servants[0]

    protection, schedule = level
    plan = plan_of("residual")
    with nothing_left():
        options = replace(options_of(Bulk.MEMFD), streams=False)
        with Session(plan, protection=protection, schedule=schedule, device=reach(start, options), threads=1,
                     micro_batches=1) as session:  # fmt: skip
            images, expected = case_of("residual", 2)
            assert same(session.run(images), expected)
            said = "the worker has not enough memory"
            if accelerator is Accelerator.CUDA:
                said = f"GPU has not enough memory.* 5 images.* {gpu_footprint(plan).total(5) / 1e9:.1f} GB"
            with pytest.raises(DeviceError, match=said):
                session.run(case_of("residual", 5)[0])
        device.pool.shutdown()
        assert wait_until(lambda: bool(servants[0].errors))
        assert [str(error) for error in servants[0].errors] == ["the plan takes up to 9.0 GB, and 1.0 GB are free"]
        servants.clear()  # an error keeps the memory of those it met


def test_a_device_that_is_called_is_not_queued() -> None:
    layout = make_layout(plan_of("dense"))
    with pytest.raises(ApiMisuse, match="does not write answers"):
        QueuedAnswering(served(NumpyDevice(), layout), None)  # type: ignore[arg-type]


def test_it_ends_when_nobody_is_there() -> None:
    before = threading.active_count()
    device = SlotNumpy()
    answering = QueuedAnswering(served(device, make_layout(plan_of("dense"))), Mouth.__new__(Mouth))
    answering.stop()
    answering.stop()
    assert threading.active_count() == before
    assert PRIVATE
