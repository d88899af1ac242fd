"""Whatever bytes a plan file holds: a ModelError, or the plan whose digest it names; never anything else."""

from __future__ import annotations

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from slalom.errors import ModelError
from slalom.plan import Plan


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
