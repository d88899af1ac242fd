"""The CUDA device that writes claims where it is told: through a ring, with another process, and after an end."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from slalom.errors import DeviceError
from slalom.link import layout as layouts
from slalom.link.channel import Channel
from slalom.link.message import Bulk
from slalom.link.queued import QueuedAnswering
from slalom.session import Session
from tests.devices import GRAPH_NAMES, case_of, plan_of, same
from tests.link.lies import LEVELS
from tests.link.serving import PATIENCE, Servant, nothing_left, options_of, reach

gpu = pytest.mark.gpu


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """So small that every claim takes several, and the ring comes round."""
    monkeypatch.setattr(layouts, "_PIECE_SIZE", 4096)
    monkeypatch.setattr(layouts, "_GRAIN", 16)


@gpu
@pytest.mark.parametrize("level", LEVELS, ids="-".join)
@pytest.mark.parametrize("name", GRAPH_NAMES)
def test_claims_in_pieces_are_right_at_every_level(name: str, level: tuple[str, str]) -> None:
    from slalom.device.slots import CudaSlotDevice

    device = CudaSlotDevice()
    options = replace(options_of(Bulk.MEMFD, micro_batches=3), streams=True)
    remote = reach(lambda stream: Servant(device, stream, lambda s: Channel(s, PATIENCE), QueuedAnswering), options)
    protection, schedule = level
    with (
        nothing_left(),
        Session(plan_of(name), protection=protection, schedule=schedule, device=remote, threads=2,
                micro_batches=3) as session,
    ):  # fmt: skip
        for batch in (2, 61, 1):
            images, expected = case_of(name, batch)
            assert same(session.run(images), expected)
        assert protection == "device" or device.streams


@gpu
@pytest.mark.parametrize("protection", ["verified", "private"])
def test_a_gpu_does_not_wait_for_who_is_gone(protection: str) -> None:
    """The trusted side leaves with its ring full: the device lets go of the memory, and serves another."""
    from slalom.device.slots import CudaSlotDevice

    device = CudaSlotDevice()
    options = replace(options_of(Bulk.MEMFD), streams=True)
    servants: list[Servant] = []

    def serve(stream: object) -> Servant:
        servants.append(Servant(device, stream, lambda s: Channel(s, PATIENCE), QueuedAnswering))  # type: ignore[arg-type]
        return servants[-1]

    images, expected = case_of("residual", 61)
    plan = plan_of("residual")
    with nothing_left():
        remote = reach(serve, options)
        remote.load(plan)
        step = layouts.make_layout(plan).steps[0]
        words = np.zeros((61, *layouts.make_layout(plan).sources[step.name]), np.int32)
        for _ in range(2):
            remote.submit([step.name], words)
        remote.close()
        with Session(plan, protection=protection, device=reach(serve, options), threads=1) as session:
            assert same(session.run(images), expected)
    assert not any(isinstance(error, DeviceError) for servant in servants for error in servant.errors)
