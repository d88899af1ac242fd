"""Every level, check, schedule and way of running gives the reference's outputs, bit for bit, on every hand graph."""

from __future__ import annotations

import itertools
from typing import NamedTuple

import numpy as np
import pytest

from slalom.arithmetic.dispatch import available_isas
from slalom.session import Session
from slalom.trusted.soundness import soundness_bits
from tests.devices import GRAPH_NAMES, NumpyDevice, case_of, linear_steps_of, plan_of, same

CHECKS = ("direct", "batched", "preprocessed")
LEVELS = [
    ("enclave", "preprocessed", 1, "ahead"),
    ("device", "preprocessed", 1, "ahead"),
    ("blinded", "preprocessed", 1, "ahead"),
    *(("verified", check, rounds, "ahead") for check in CHECKS for rounds in (1, 2, 3)),
    *(("verified", check, rounds, "layerwise") for check in CHECKS for rounds in (1, 2, 3)),
    *(("private", check, rounds, "ahead") for check in CHECKS for rounds in (1, 2, 3)),
]


class Way(NamedTuple):
    """How a session runs, which must not show in what it gives."""

    isa: str
    threads: int
    micro_batches: int
    batch: int


WAYS = [Way(*way) for way in itertools.product(map(str, available_isas()), (1, 2), (1, 2, 3), (1, 2, 5))]


def check_equal(name: str, level: tuple[str, str, int, str], way: Way) -> None:
    protection, check, rounds, schedule = level
    images, expected = case_of(name, way.batch)
    with Session(
        plan_of(name),
        protection=protection,
        check=check,
        rounds=rounds,
        schedule=schedule,
        device=NumpyDevice(),
        isa=way.isa,
        threads=way.threads,
        micro_batches=way.micro_batches,
    ) as session:
        before = images.copy()
        assert same(session.run(images), expected), (level, way)
        np.testing.assert_array_equal(images, before)
        report = session.report
        assert report.images == way.batch
        assert report.soundness_bits == soundness_bits(session.policy, len(linear_steps_of(name)), way.batch)


@pytest.mark.parametrize("level", LEVELS, ids=lambda level: "-".join(map(str, level)))
@pytest.mark.parametrize("name", GRAPH_NAMES)
def test_equal_to_the_reference(name: str, level: tuple[str, str, int, str]) -> None:
    """Each case takes one way of every instruction set; together they take them all."""
    number = GRAPH_NAMES.index(name) * len(LEVELS) + LEVELS.index(level)
    for isa in available_isas()[-1:] if number % 3 else available_isas():
        ways = [way for way in WAYS if way.isa == isa]
        check_equal(name, level, ways[number * 5 % len(ways)])


def test_the_cases_take_every_way() -> None:
    """18 ways of an instruction set; 5 and 18 have no common factor."""
    assert len(GRAPH_NAMES) * len(LEVELS) >= 18
    assert {number * 5 % 18 for number in range(18)} == set(range(18))


@pytest.mark.slow
@pytest.mark.parametrize("level", LEVELS, ids=lambda level: "-".join(map(str, level)))
@pytest.mark.parametrize("name", GRAPH_NAMES)
def test_equal_in_every_way(name: str, level: tuple[str, str, int, str]) -> None:
    for way in WAYS:
        check_equal(name, level, way)


@pytest.mark.parametrize("protection", ["enclave", "device", "verified", "blinded", "private"])
def test_a_session_runs_many_requests_of_any_size(protection: str) -> None:
    with Session(plan_of("residual"), protection=protection, device=NumpyDevice(), threads=1) as session:
        for seed, batch in enumerate((1, 5, 2, 5, 1)):
            images, expected = case_of("residual", batch, seed)
            if seed % 2:
                session.prepare_masks(batch)
            assert same(session.run(images), expected)
        assert session.report.images == 14


@pytest.mark.parametrize("protection", ["enclave", "verified", "private"])
def test_extreme_images(protection: str) -> None:
    """Zeros, the limits of float32 and the smallest numbers: clamped, never refused, and equal to the reference's."""
    import reference.network

    plan = plan_of("residual")
    images = np.zeros((5, 3, 6, 6), np.float32)
    images[1], images[2] = np.finfo(np.float32).max, np.finfo(np.float32).min
    images[3], images[4, :, ::2] = np.float32(1e-45), -np.float32(3e38)
    with np.errstate(over="ignore"):
        expected = reference.network.run(plan.graph, dict(plan.tensors), images)
    with Session(plan, protection=protection, device=NumpyDevice()) as session:
        assert same(session.run(images), expected)
