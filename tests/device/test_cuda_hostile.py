"""Cheats whose products a GPU makes, a GPU that lies in its own memory, and workers killed while they work."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch

from slalom import attacks
from slalom.arithmetic.pieces import Passage
from slalom.errors import ApiMisuse, DeviceError, IntegrityError, WireError
from slalom.link import layout
from slalom.link.channel import Channel
from slalom.link.message import Accelerator, Bulk
from slalom.link.port import Place
from slalom.link.queued import QueuedAnswering
from slalom.reporting import Outcome
from slalom.session import Session
from slalom.trusted.recorder import Recorder, Side, Span
from tests.devices import case_of, linear_steps_of, plan_of, same
from tests.fleet.sources import nothing_leaks
from tests.link.lies import AHEAD, LAYERWISE, PRIVATE
from tests.link.serving import PATIENCE, Servant, options_of, reach, wait_until

pytestmark = pytest.mark.gpu
NETWORK, BATCH = "residual", 3
CHECKED = (AHEAD, LAYERWISE, PRIVATE)
FORMS = ("wrong_shape", "wrong_dtype", "short_answer", "extra_answer", "out_of_order")  # a link sees these itself
HIGH_BITS = ("flip_element", "add_2_31", "first_layer", "last_layer")  # may change a bit that is not sent when packed


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that claims take several, and the ring comes round."""
    monkeypatch.setattr(layout, "_PIECE_SIZE", 4096)
    monkeypatch.setattr(layout, "_GRAIN", 16)


@cache
def engine() -> Any:
    from slalom.device.accelerated import CudaEngine

    return CudaEngine()


@pytest.mark.parametrize("level", CHECKED, ids="-".join)
@pytest.mark.parametrize("attack", attacks.names())
def test_every_attack_is_refused_where_a_gpu_computes(attack: str, level: tuple[str, str]) -> None:
    cheat = attacks.make(attack, threads=1, engine=engine())
    device = reach(
        lambda stream: Servant(cheat, stream, accelerator=Accelerator.CUDA),
        replace(options_of(Bulk.MEMFD, micro_batches=1), streams=True),
    )
    protection, schedule = level
    with Session(plan_of(NETWORK), protection=protection, schedule=schedule, device=device, threads=1,
                 micro_batches=1) as session:  # fmt: skip
        for request in range(cheat.acts_from - 1):
            images, expected = case_of(NETWORK, BATCH, request)
            assert same(session.run(images), expected)
        images, expected = case_of(NETWORK, BATCH, cheat.acts_from - 1)
        try:
            outputs = session.run(images)
        except (IntegrityError, WireError) as error:
            assert attack in FORMS or type(error) is IntegrityError
            with pytest.raises(ApiMisuse, match="the session is over"):
                session.run(images)
        else:
            assert attack in HIGH_BITS and protection == "verified" and same(outputs, expected)
        assert cheat.told


@pytest.mark.parametrize("protection", ["verified", "private"])
@pytest.mark.parametrize("attack", ["add_modulus_low", "wrong_weights", "garbage"])
def test_a_cheating_worker_with_a_gpu_is_refused(attack: str, protection: str) -> None:
    """In a process of its own, as the command line starts it."""
    images, _ = case_of(NETWORK, BATCH)
    with (
        nothing_leaks(),
        Session(plan_of(NETWORK), protection=protection, worker_device="cuda", attack=attack, threads=1) as session,
        pytest.raises(IntegrityError),
    ):
        session.run(images)


# ---------------------------------------------------------------- a GPU that lies where it computes


def lying(count: int, alter: Callable[[torch.Tensor], None]) -> Any:
    """A device that changes one claim in a request in the GPU's own memory, before it is copied out: the `count`-th."""
    from slalom.device.slots import CudaSlotDevice

    class Lying(CudaSlotDevice):
        left = count
        told = False

        def _deliver(self, result: torch.Tensor, out: Place) -> Any:
            self.left -= 1
            if self.left == 0:
                with torch.cuda.stream(self._run):
                    result = result.clone()
                    alter(result)
                self._kept = result  # until it is copied
                self.told = True
            return super()._deliver(result, out)

    return Lying()


def add_one(claim: torch.Tensor) -> None:
    """To the last element; where it is packed, to the lowest byte of one."""
    flat = claim.view(-1)
    flat[-3] += 1


def exchange(claim: torch.Tensor) -> None:
    """Every item takes the place of the next."""
    claim.copy_(claim.roll(1, 0) + (claim == claim.roll(1, 0)).all())


@pytest.mark.parametrize("alter", [add_one, exchange, torch.Tensor.zero_], ids=["add_one", "exchange", "zero"])
@pytest.mark.parametrize("count", [1, 2, 5])
@pytest.mark.parametrize("level", CHECKED, ids="-".join)
def test_a_lie_in_the_gpu_is_refused(level: tuple[str, str], count: int, alter: Callable[[torch.Tensor], None]) -> None:
    device = lying(count, alter)
    with pytest.raises(IntegrityError) as raised:
        serve_once(device, level)
    assert device.told and raised.value.step in linear_steps_of(NETWORK)


def serve_once(device: Any, level: tuple[str, str]) -> Any:
    remote = reach(
        lambda stream: Servant(device, stream, lambda s: Channel(s, PATIENCE), QueuedAnswering,
                               accelerator=Accelerator.CUDA, streams=True),
        options_of(Bulk.MEMFD),
    )  # fmt: skip
    protection, schedule = level
    try:
        with Session(plan_of(NETWORK), protection=protection, schedule=schedule, device=remote, threads=1) as session:
            return session.run(case_of(NETWORK, 61)[0])
    finally:  # the next device of this process needs a GPU on which nothing waits
        assert wait_until(lambda: device._memory is None), "the memory was not let go"


@pytest.mark.parametrize("level", CHECKED, ids="-".join)
def test_pieces_said_to_be_there_too_early_give_no_wrong_answer(level: tuple[str, str]) -> None:
    """The counter runs ahead of the copies: what was read too early is refused, and what was there in time is right."""
    from slalom.device.slots import CudaSlotDevice

    class Hasty(CudaSlotDevice):
        def _pour(self, result: torch.Tensor, passage: Passage) -> Any:
            passage.ring.ready[0] = passage.first + passage.pieces
            return super()._pour(result, passage)

    try:
        outputs = serve_once(Hasty(), level)
    except IntegrityError:
        return
    assert same(outputs, case_of(NETWORK, 61)[1])


# ---------------------------------------------------------------- a worker that is killed


class Killer(Recorder):
    """Kills a session's worker when the trusted side asks for a step in a given micro-batch, once."""

    def __init__(self, step: str, micro_batch: int) -> None:
        super().__init__()
        self._place = (step, micro_batch)
        self.victim: int | None = None
        self.killed = False

    def add(self, span: Span) -> None:
        super().add(span)
        due = span.side is Side.TRUSTED and (span.step, span.micro_batch) == self._place
        if due and self.victim is not None and not self.killed:
            self.killed = True
            os.kill(self.victim, signal.SIGKILL)


def pid_of(session: Session) -> int:
    pid: int = session._crew.lives[0].device.pid
    return pid


@pytest.mark.parametrize("level", [*CHECKED, ("blinded", "ahead")], ids="-".join)
@pytest.mark.parametrize("place", ["first", "middle"])
def test_a_worker_killed_in_the_middle_loses_nothing(place: str, level: tuple[str, str]) -> None:
    """Other micro-batches are on their way: the request is answered by another worker, as if nothing had been."""
    steps = linear_steps_of(NETWORK)
    killer = Killer(steps[0] if place == "first" else steps[len(steps) // 2], 1)
    images, expected = case_of(NETWORK, 61)
    protection, schedule = level
    with (
        nothing_leaks(),
        Session(plan_of(NETWORK), protection=protection, schedule=schedule, worker_device="cuda", threads=2,
                micro_batches=3, on_failure="retry", recorder=killer) as session,
    ):  # fmt: skip
        assert same(session.run(images), expected)
        first = pid_of(session)
        killer.victim = first
        assert same(session.run(images), expected)
        assert killer.killed and pid_of(session) != first
        assert same(session.run(images), expected)
        assert [incident.outcome for incident in session.report.incidents] == [Outcome.RETRIED]


def test_a_worker_killed_for_good_is_an_error_and_no_answer() -> None:
    killer = Killer(linear_steps_of(NETWORK)[1], 1)
    images, _ = case_of(NETWORK, 61)
    with (
        nothing_leaks(),
        Session(plan_of(NETWORK), protection="private", worker_device="cuda", threads=2, micro_batches=3,
                recorder=killer) as session,
    ):  # fmt: skip
        session.run(images)
        killer.victim = pid_of(session)
        with pytest.raises(DeviceError):
            session.run(images)
        assert killer.killed


# ---------------------------------------------------------------- whole networks


@pytest.mark.parametrize("name", ["vgg_16", "resnet_50", "mobilenet", "mobilenet_sep"])
def test_whole_networks_give_the_bits_of_the_cpu(name: str) -> None:
    """Every claim of a run ahead, and the outputs."""
    from slalom.cli.network import NetworkOptions
    from slalom.cli.offline import offline_network
    from slalom.device.local import LocalDevice
    from slalom.device.slots import CudaSlotDevice

    with offline_network(name, NetworkOptions(None, 224)) as network:
        plan = network.plan
        shape = plan.graph.input.output.shape
        activation = np.random.default_rng(4).integers(-128, 128, (2, *shape)).astype(np.int16)
        ours, theirs = CudaSlotDevice(), LocalDevice()
        for device in (ours, theirs):
            device.load(plan)
        for claim, other in zip(ours.run_ahead(activation), theirs.run_ahead(activation), strict=True):
            assert claim.step == other.step and np.array_equal(claim.words, other.words), claim.step
        assert same(tuple(ours.run(activation)), theirs.run(activation))
        ours.close()
