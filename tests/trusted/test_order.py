"""Nothing is sent that was made from a result nobody has checked: after a lie the device is asked nothing more."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from slalom import IntegrityError, Session
from slalom.plan import Plan
from slalom.plan.steps import Linear
from slalom.trusted.checker import CheckBook, Verified
from tests import graphs
from tests.devices import NumpyDevice

CHECKED = [("private", "ahead"), ("verified", "layerwise")]


class LyingDevice(NumpyDevice):
    """Changes one element of one step and writes down what it is asked."""

    def __init__(self, lies_at: str) -> None:
        super().__init__()
        self.lies_at = lies_at
        self.asked: list[str] = []

    def compute(self, step_names: Sequence[str], words: np.ndarray) -> Sequence[Any]:
        self.asked.extend(step_names)
        claims = [claim.copy() for claim in super().compute(step_names, words)]
        for name, claim in zip(step_names, claims, strict=True):
            if name == self.lies_at:
                claim.reshape(-1)[0] ^= 1
        return claims


def plan_and_steps() -> tuple[Plan, list[str], np.ndarray]:
    graph, tensors = graphs.depthwise_graph()
    steps = [step.name for step in graph.steps if isinstance(step, Linear)]
    return Plan(graph, tensors), steps, graphs.images(graph, 2, 5)


@pytest.mark.parametrize(("protection", "schedule"), CHECKED)
def test_nothing_follows_a_lie(protection: str, schedule: str) -> None:
    plan, steps, images = plan_and_steps()
    for index, name in enumerate(steps):
        device = LyingDevice(name)
        with (
            Session(plan, protection=protection, schedule=schedule, device=device, micro_batches=1) as session,
            pytest.raises(IntegrityError, match=name),
        ):
            session.run(images)
        assert device.asked == steps[: index + 1]


@pytest.mark.parametrize(("protection", "schedule"), CHECKED)
def test_the_order_shows_when_the_check_is_taken_out(
    protection: str, schedule: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(CheckBook, "check_claim", lambda self, examined: Verified(examined.values))
    plan, steps, images = plan_and_steps()
    device = LyingDevice(steps[0])
    with Session(plan, protection=protection, schedule=schedule, device=device, micro_batches=1) as session:
        session.run(images)
    assert device.asked == steps
