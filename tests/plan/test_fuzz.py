"""Whatever bytes a plan file holds: a ModelError, or the plan whose digest it names; never anything else."""

from __future__ import annotations

import time
import tracemalloc

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from slalom.errors import ModelError
from slalom.plan import Plan
from tests.devices import plan_of
from tests.plan.plan_files import content_of, tiny_plan

SECONDS = 5.0
PLANS = {plan.digest: content_of(plan) for plan in (tiny_plan(), plan_of("residual"), plan_of("every_step"))}
WORDS = [b'"', b"{", b"}", b"[", b"]", b",", b":", b"0", b"-1", b"1e9", b"NaN", b"true", b"null", b"\\u0000", b"\xff"]


def read(content: bytes, digest: str) -> bool:
    """Whether the plan was read; then it is the plan that was written."""
    try:
        plan = Plan.from_bytes(content)
    except ModelError as error:
        assert len(str(error)) < 500
        assert "\n" not in str(error)
        return False
    assert plan.digest == digest
    return True


def mutate(content: bytes, random: np.random.Generator) -> bytes:
    """A few random changes: a byte, a bit, a cut, a repetition, a piece of JSON."""
    changed = bytearray(content)
    limit = len(content) if random.integers(2) else min(len(content), 4096)
    for _ in range(random.integers(1, 4)):
        place, kind = int(random.integers(limit)), int(random.integers(6))
        place = min(place, len(changed) - 1)
        if kind == 0:
            changed[place] = int(random.integers(256))
        elif kind == 1:
            changed[place] ^= 1 << int(random.integers(8))
        elif kind == 2:
            del changed[place : place + int(random.integers(1, 20))]
        elif kind == 3:
            changed[place:place] = changed[place : place + int(random.integers(1, 20))]
        elif kind == 4:
            word = WORDS[int(random.integers(len(WORDS)))]
            changed[place : place + len(word)] = word
        else:
            changed[:8] = int(random.integers(2**62)).to_bytes(8, "little") if random.integers(8) == 0 else changed[:8]
        if len(changed) < 9:
            break
    return bytes(changed)


def test_random_changes_are_refused_or_change_nothing() -> None:
    random = np.random.default_rng(0)
    largest = 60 * max(len(content) for content in PLANS.values())
    end, tries, accepted = time.monotonic() + SECONDS, 0, 0
    tracemalloc.start()
    try:
        while time.monotonic() < end:
            for digest, content in PLANS.items():
                accepted += read(mutate(content, random), digest)
                tries += 1
            assert tracemalloc.get_traced_memory()[1] < largest
    finally:
        tracemalloc.stop()
    assert tries > 200
    assert accepted < tries


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.binary(max_size=300))
def test_random_bytes_are_no_plan(content: bytes) -> None:
    assert not read(content, "")
    assert not read(len(content).to_bytes(8, "little") + content, "")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.dictionaries(st.sampled_from(["__metadata__", "w", "b", "x"]), json_values))
def test_random_headers_are_no_plan(header: dict[str, object]) -> None:
    import json

    raw = json.dumps(header).encode()
    assert not read(len(raw).to_bytes(8, "little") + raw + b"\0" * 16, "")
