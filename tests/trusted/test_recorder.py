"""A recorder takes down names and times of every step and micro-batch, on both sides, and nothing without one."""

from __future__ import annotations

import dataclasses
from itertools import pairwise

import pytest

from slalom import Session
from slalom.trusted.recorder import Recorder, Side, Span
from slalom.trusted.traffic import Traffic
from tests.devices import NumpyDevice, case_of, linear_steps_of, plan_of, same


@pytest.mark.parametrize("protection", ["verified", "blinded", "private"])
def test_every_step_of_every_micro_batch(protection: str) -> None:
    images, expected = case_of("residual", 4)
    recorder = Recorder()
    with Session(plan_of("residual"), protection=protection, device=NumpyDevice(), recorder=recorder) as session:
        assert same(session.run(images), expected)
    spans = recorder.take()
    assert all(before.begin <= after.begin for before, after in pairwise(spans))
    assert all(span.begin <= span.end for span in spans)
    steps = set(linear_steps_of("residual"))
    for micro_batch in (0, 1):
        mine = [span for span in spans if span.micro_batch == micro_batch]
        answered = {span.step for span in mine if span.side is Side.DEVICE}
        assert answered and answered <= steps
        led_to = [span.step for span in mine if span.side is Side.TRUSTED]
        assert led_to[-1] == "output" and set(led_to) <= {*steps, "output"}
    assert {span.micro_batch for span in spans} == {0, 1}
    assert recorder.take() == ()


def test_inside_there_is_the_trusted_side_alone() -> None:
    images, _ = case_of("residual", 2)
    recorder = Recorder()
    with Session(plan_of("residual"), protection="enclave", recorder=recorder) as session:
        session.run(images)
    assert {(span.side, span.step) for span in recorder.take()} == {(Side.TRUSTED, "output")}


def test_spans_hold_names_and_numbers_and_are_not_taken_down_unasked() -> None:
    assert set(Span.__annotations__) == {"step", "side", "micro_batch", "begin", "end"}
    assert next(field.default for field in dataclasses.fields(Traffic) if field.name == "recorder") is None
    Traffic().record("a", Side.DEVICE, 0, 0.0, 1.0)
