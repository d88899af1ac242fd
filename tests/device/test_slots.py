"""The CUDA device that writes claims where it is told, in a worker of its own: by a ring, and in memory that grows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from slalom.link import layout as layouts
from slalom.link.remote import RemoteDevice
from slalom.link.ticket import Post
from slalom.plan.flow import trace_flow
from slalom.plan.footprint import gpu_footprint
from slalom.session import Session
from tests.devices import GRAPH_NAMES, case_of, plan_of, same
from tests.link.lies import LEVELS

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("level", LEVELS, ids="-".join)
@pytest.mark.parametrize("name", GRAPH_NAMES)
def test_claims_in_pieces_are_right_at_every_level(
    name: str, level: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pieces so small that claims take several and the ring comes round; the trusted side alone decides on them."""
    monkeypatch.setattr(layouts, "_PIECE_SIZE", 4096)
    monkeypatch.setattr(layouts, "_GRAIN", 16)
    protection, schedule = level
    with Session(plan_of(name), protection=protection, schedule=schedule, worker_device="cuda", threads=2,
                 micro_batches=3) as session:  # fmt: skip
        for batch in (2, 61, 1):
            images, expected = case_of(name, batch)
            assert same(session.run(images), expected)


@pytest.mark.parametrize("micro_batches", [1, 2, 4])
@pytest.mark.parametrize("protection", ["private", "blinded"])
@pytest.mark.parametrize("name", GRAPH_NAMES)
def test_words_in_pieces_are_right(
    name: str, protection: str, micro_batches: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the second request on; and again after another batch."""
    monkeypatch.setattr(layouts, "_PIECE_SIZE", 4096)
    monkeypatch.setattr(layouts, "_GRAIN", 16)
    posted: list[int] = []
    post = RemoteDevice.post

    def noted(self: RemoteDevice, *asked: Any) -> Post | None:
        found = post(self, *asked)
        posted.append(0 if found is None else found.words.passage.pieces)
        return found

    monkeypatch.setattr(RemoteDevice, "post", noted)
    with Session(plan_of(name), protection=protection, worker_device="cuda", threads=layouts._MANY_THREADS,
                 micro_batches=micro_batches) as session:  # fmt: skip
        for batch in (60, 60, 60, 20, 60, 60):
            posted.clear()
            images, expected = case_of(name, batch)
            assert same(session.run(images), expected)
    assert all(posted) and max(posted) > 1


@pytest.mark.parametrize("protection", ["verified", "private"])
def test_one_worker_after_another(protection: str) -> None:
    """Each leaves the GPU as it was."""
    images, expected = case_of("residual", 61)
    for _ in range(2):
        with Session(plan_of("residual"), protection=protection, worker_device="cuda", threads=1) as session:
            assert same(session.run(images), expected)


def test_what_does_not_fit_the_gpu_is_refused_with_the_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the worker, which knows what is free; here in this process, with memory that is nobody's."""
    from slalom.device.slots import CudaSlotDevice

    device = CudaSlotDevice()
    device.load(plan_of("residual"))
    with pytest.raises(
        MemoryError, match=r"takes up to [\d.]+ GB .* batches of 1000000000 images, and [\d.]+ GB are free"
    ):
        device.map_memory(np.zeros(4096, np.uint8), 10**9)
    device.map_memory(np.zeros(4096, np.uint8), 2)
    device.unmap_memory()
    device.close()


@pytest.mark.parametrize("name", GRAPH_NAMES)
def test_recordings_take_no_more_than_the_plan_is_said_to(name: str) -> None:
    from slalom.device.slots import CudaSlotDevice

    plan, device, batch = plan_of(name), CudaSlotDevice(), 40
    device.load(plan)
    device.map_memory(np.zeros(4096, np.uint8), batch)
    before = torch.cuda.memory_reserved()
    for value, consumers in trace_flow(plan.graph).consumers.items():
        words = np.zeros((batch, *plan.types[value].shape), np.int32)
        for _ in range(2):
            outs = [np.zeros((batch, *step.output.shape), np.int32) for step in consumers]
            for wait in device.begin_compute([step.name for step in consumers], words, outs):
                wait()
    assert torch.cuda.memory_reserved() - before <= gpu_footprint(plan).recordings(batch)
    device.unmap_memory()
    device.close()
