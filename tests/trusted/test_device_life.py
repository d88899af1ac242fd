"""What a device can do at the edges of its life: while it is given the plan, and while it is let go."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from slalom.errors import ApiMisuse, DeviceError, IntegrityError, PrivacyError
from slalom.link.port import DevicePort
from slalom.plan import Plan
from slalom.plan.steps import Linear
from slalom.session import Session
from slalom.trusted.session import TrustedSession
from tests import graphs
from tests.devices import NumpyDevice, case_of, plan_of, same

IMAGES, EXPECTED = case_of("depthwise", 3)


def fresh_plan() -> Plan:
    """A plan that no other test shares: devices here write to it."""
    return Plan(*graphs.depthwise_graph())


def force_write(tensor: np.ndarray) -> np.ndarray:
    """What a device in the same process can do to an array that is locked: write to what it is a view of."""
    while isinstance(tensor.base, np.ndarray):
        tensor = tensor.base
    return tensor


class Poisoner(NumpyDevice):
    """Writes other weights into the plan that it was given, and computes with them honestly."""

    def load(self, plan: Plan) -> None:
        super().load(plan)
        for tensor in plan.tensors.values():
            if tensor.dtype == np.int8:
                force_write(tensor)[...] //= 2


class LatePoisoner(NumpyDevice):
    """The same, when it is first asked for something."""

    def linear(self, step: Linear, words: np.ndarray) -> np.ndarray:
        for linear_map in step.maps:
            force_write(self.plan.tensors[linear_map.weight])[...] = 1
        return super().linear(step, words)


@pytest.mark.parametrize("poisoner", [Poisoner, LatePoisoner])
@pytest.mark.parametrize("isa", ["numpy", None])
@pytest.mark.parametrize("check", ["direct", "batched", "preprocessed"])
@pytest.mark.parametrize("protection", ["verified", "private"])
def test_a_plan_that_the_device_changes_is_refused(
    protection: str, check: str, isa: str | None, poisoner: type[NumpyDevice]
) -> None:
    """The trusted side checks against the weights as they were before the device saw them."""
    plan = fresh_plan()
    with (
        pytest.raises(IntegrityError),
        Session(plan, protection=protection, check=check, isa=isa, device=poisoner(), threads=1) as session,
    ):
        session.run(IMAGES)


class Failing(NumpyDevice):
    """Does something else in place of one of its methods; `compute` is one off where `lies`."""

    def __init__(self, method: str, call: Any, lies: bool = False) -> None:
        self.lies = lies
        setattr(self, method, call)

    def linear(self, step: Linear, words: np.ndarray) -> np.ndarray:
        return super().linear(step, words) + np.int32(self.lies)


def fail(*_: Any) -> None:
    raise KeyError("of the device")


def test_a_device_that_fails_to_load() -> None:
    opened: list[Any] = []
    init = TrustedSession.__init__

    def record(self: TrustedSession, *arguments: Any) -> None:
        init(self, *arguments)
        opened.append(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TrustedSession, "__init__", record)
        with pytest.raises(DeviceError, match="failed with KeyError"):
            Session(plan_of("depthwise"), device=Failing("load", fail))
    with pytest.raises(PrivacyError, match="destroyed"):
        opened[0]._randomness.draw_stream()


@pytest.mark.parametrize("method", ["load", "close"])
def test_a_device_that_hangs_at_its_beginning_or_end(method: str) -> None:
    go_on = threading.Event()
    device = Failing(method, lambda *_: go_on.wait(30))
    begin = time.monotonic()
    with pytest.raises(DeviceError, match=r"did not answer within 0\.3 seconds"):
        Session(plan_of("depthwise"), device=device, timeout_seconds=0.3).close()
    go_on.set()
    assert time.monotonic() - begin < 5


def test_a_device_that_fails_to_close_does_not_hide_why_the_session_ended() -> None:
    with (
        pytest.raises(IntegrityError),
        Session(plan_of("depthwise"), device=Failing("close", fail, lies=True)) as session,
    ):
        session.run(IMAGES)
    session = Session(plan_of("depthwise"), device=Failing("close", fail))
    with pytest.raises(DeviceError, match="failed with KeyError"), session:
        assert same(session.run(IMAGES), EXPECTED)
    with pytest.raises(ApiMisuse, match="the session is over"):
        session.run(IMAGES)


@pytest.mark.parametrize("device", [None, 3, object(), NumpyDevice])
def test_a_device_must_have_the_methods_of_a_port(device: Any) -> None:
    if device is NumpyDevice:
        device = type("Half", (), {"load": fail, "run": fail})()
    with pytest.raises(ApiMisuse, match="a device has a method"):
        Session(plan_of("depthwise"), device=device)


def test_a_list_of_claims_that_changes_later() -> None:
    """The claims are those that were in the list when the device gave it."""

    class Shrinking(NumpyDevice):
        given: list[Any] = []  # noqa: RUF012

        def compute(self, step_names: Sequence[str], words: np.ndarray) -> Sequence[np.ndarray]:
            self.given = list(super().compute(step_names, words))
            return self.given

    device = Shrinking()
    port: DevicePort = device
    from slalom.trusted.traffic import Traffic
    from slalom.trusted.transport import _ComputeLane
    from slalom.trusted.walk import Ask

    plan = plan_of("depthwise")
    port.load(plan)
    step = next(step for step in plan.graph.steps if isinstance(step, Linear))
    lane = _ComputeLane(device, Traffic())
    claims = lane.submit(Ask((step,), np.zeros((1, *plan.types[step.source].shape), np.int32)))(10)
    lane.stop()
    device.given.clear()
    assert len(claims) == 1
