"""Whatever bytes a plan file holds: a ModelError, or the plan whose digest it names; never anything else."""

from __future__ import annotations

import numpy as np

from slalom.plan import Plan
from tests.devices import plan_of
from tests.fuzz.fuzzing import Budget, fuzz
from tests.mutation import mutate
from tests.plan.plan_files import content_of, tiny_plan

PLANS = {plan.digest: content_of(plan) for plan in (tiny_plan(), plan_of("residual"), plan_of("every_step"))}
WORDS = [b'"', b"{", b"}", b"[", b"]", b",", b":", b"0", b"-1", b"1e9", b"NaN", b"true", b"null", b"\\u0000", b"\xff"]


def attempt(random: np.random.Generator) -> str:
    digest = list(PLANS)[int(random.integers(len(PLANS)))]
    plan = Plan.from_bytes(mutate(PLANS[digest], random, WORDS))
    assert plan.digest == digest
    return "the same plan"


def test_changed_files_are_refused_or_the_same_plan(fuzz_seconds: float) -> None:
    outcomes = fuzz(attempt, Budget(fuzz_seconds, 60 * max(len(content) for content in PLANS.values()) + 64 * 2**20))
    assert all(outcome.startswith(("ModelError", "the same")) for outcome in outcomes)
    assert outcomes.total() > 20 * fuzz_seconds
    assert 0 < outcomes["the same plan"] < outcomes.total()
    assert len(outcomes) > 10
