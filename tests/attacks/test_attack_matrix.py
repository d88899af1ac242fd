"""Every cheating device, at every level with checks, with every check, in every linear step: refused, by name."""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

import numpy as np
import pytest

from slalom import attacks
from slalom.device.engine import TorchEngine
from slalom.errors import ApiMisuse, IntegrityError
from slalom.session import Session
from slalom.trusted.checker import CheckBook, Verified
from tests.devices import GRAPH_NAMES, case_of, linear_steps_of, plan_of, same

BATCH = 3
CHECKS = ("direct", "batched", "preprocessed")
FORMS = ("wrong_shape", "wrong_dtype", "short_answer", "extra_answer", "out_of_order")
VALUES = tuple(name for name in attacks.names() if name not in FORMS)


class Level(NamedTuple):
    """A level whose results are checked."""

    protection: str
    schedule: str


LEVELS = (Level("verified", "ahead"), Level("verified", "layerwise"), Level("private", "ahead"))
PLACES = [(name, step) for name in GRAPH_NAMES for step in linear_steps_of(name)]


@cache
def engine() -> TorchEngine:
    """One for all: it tests itself when it is made."""
    return TorchEngine()


def places_of(attack: str) -> list[tuple[str, str]]:
    """Where an attack can lie: some have a step of their own."""
    if attack == "first_layer":
        return [(name, linear_steps_of(name)[0]) for name in GRAPH_NAMES]
    if attack == "last_layer":
        return [(name, linear_steps_of(name)[-1]) for name in GRAPH_NAMES]
    return PLACES


def open_session(device: Any, name: str, **arguments: Any) -> Session:
    return Session(plan_of(name), device=device, threads=1, micro_batches=1, **arguments)


def run(session: Session, device: attacks.CheatingDevice, name: str) -> Any:
    """The output of the request in which the device lies; the honest ones before it are right."""
    for request in range(device.acts_from - 1):
        images, expected = case_of(name, BATCH, request)
        assert same(session.run(images), expected)
        assert not device.told
    return session.run(case_of(name, BATCH, device.acts_from - 1)[0])


def check_refused(attack: str, level: Level, check: str, place: tuple[str, str]) -> None:
    name, step = place
    device = attacks.make(attack, seed=0, step=step, threads=1, engine=engine())
    session = open_session(device, name, protection=level.protection, schedule=level.schedule, check=check)
    with session:
        with pytest.raises(IntegrityError) as raised:
            run(session, device, name)
        assert device.told, "no lie was told"
        assert raised.value.step in linear_steps_of(name)
        if attack in VALUES and attack != "different_input":
            assert raised.value.step == step
        with pytest.raises(ApiMisuse, match="the session is over"):
            session.run(case_of(name, BATCH)[0])


def number_of(attack: str, level: Level, check: str) -> int:
    """A case's number, so that cases share the places out among themselves."""
    return (attacks.names().index(attack) * len(LEVELS) + LEVELS.index(level)) * len(CHECKS) + CHECKS.index(check)


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("level", LEVELS, ids="-".join)
@pytest.mark.parametrize("attack", attacks.names())
def test_every_attack_is_refused(attack: str, level: Level, check: str) -> None:
    """Three places each, in turn, so that every attack meets every place at some level with some check."""
    places = places_of(attack)
    number = number_of(attack, level, check)
    for turn in range(3):
        check_refused(attack, level, check, places[(3 * number + turn) % len(places)])


def test_the_cases_share_out_every_place() -> None:
    for attack in attacks.names():
        numbers = [number_of(attack, level, check) for level in LEVELS for check in CHECKS]
        places = places_of(attack)
        met = {(3 * number + turn) % len(places) for number in numbers for turn in range(3)}
        assert met == set(range(len(places)))


@pytest.mark.slow
@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("level", LEVELS, ids="-".join)
@pytest.mark.parametrize("attack", attacks.names())
def test_every_attack_is_refused_in_every_step(attack: str, level: Level, check: str) -> None:
    for place in places_of(attack):
        check_refused(attack, level, check, place)


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("level", LEVELS, ids="-".join)
@pytest.mark.parametrize("attack", VALUES)
def test_without_the_check_the_lie_gets_through(
    attack: str, level: Level, check: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So it is the check that refuses, and nothing else. A small lie may be rounded away; most show in the output."""
    monkeypatch.setattr(CheckBook, "check_claim", lambda self, examined: Verified(examined.values))
    device = attacks.make(attack, seed=1, step=None, threads=1, engine=engine())
    name = "residual"
    with open_session(device, name, protection=level.protection, schedule=level.schedule, check=check) as session:
        output = run(session, device, name)
    assert device.told
    if attack in ("garbage", "zero", "scale", "negate", "swap_items", "shift", "other_step", "replay", "late_truth"):
        assert not same(output, case_of(name, BATCH, device.acts_from - 1)[1])


@pytest.mark.parametrize("protection", ["blinded", "device"])
@pytest.mark.parametrize("attack", VALUES)
def test_levels_without_checks_do_not_see_a_lie(attack: str, protection: str) -> None:
    """What `blinded` and `device` do not promise: the lie is told, nothing is raised, and the output is wrong."""
    wrong = 0
    for seed in range(3):
        device = attacks.make(attack, seed=seed, threads=1, engine=engine())
        with open_session(device, "sequence_dense", protection=protection) as session:
            output = run(session, device, "sequence_dense")
        assert device.told
        wrong += not same(output, case_of("sequence_dense", BATCH, device.acts_from - 1)[1])
    if attack in ("garbage", "zero", "scale", "negate", "swap_items", "shift", "other_step", "late_truth"):
        assert wrong == 3


@pytest.mark.parametrize("attack", [attack for attack in FORMS if attack != "out_of_order"])
def test_blinded_refuses_answers_of_another_form(attack: str) -> None:
    """Shapes, types and counts are judged at every level where claims cross."""
    device = attacks.make(attack, step="conv2", threads=1, engine=engine())
    with open_session(device, "residual", protection="blinded") as session, pytest.raises(IntegrityError):
        run(session, device, "residual")


def test_blinded_does_not_see_claims_exchanged() -> None:
    """Of the right form, each under the other's name: only a check tells."""
    device = attacks.make("out_of_order", step="conv2", threads=1, engine=engine())
    with open_session(device, "residual", protection="blinded") as session:
        assert not same(run(session, device, "residual"), case_of("residual", BATCH)[1])
    assert device.told


@pytest.mark.parametrize("level", LEVELS, ids="-".join)
def test_a_lie_in_a_late_micro_batch_takes_the_whole_request_with_it(level: Level) -> None:
    """Three right micro-batches and a wrong one give no output at all."""

    class Late(attacks.CheatingDevice):
        calls = 0

        def linear(self, step: Any, words: np.ndarray) -> np.ndarray:
            honest = super().linear(step, words)
            if step.name != "fc":
                return honest
            self.calls += 1
            return self.tell(honest, honest) if self.calls == 4 else honest

    device = Late(engine=engine())
    images, _ = case_of("residual", 4)
    with (
        Session(
            plan_of("residual"),
            protection=level.protection,
            schedule=level.schedule,
            device=device,
            threads=1,
            micro_batches=4,
        ) as session,
        pytest.raises(IntegrityError, match="'fc'"),
    ):
        session.run(images)
    assert device.lies == 1
