"""The CUDA device that writes claims where it is told, in a worker of its own: by a ring, and in memory that grows."""

from __future__ import annotations

import pytest

from slalom.link import layout as layouts
from slalom.session import Session
from tests.devices import GRAPH_NAMES, case_of, plan_of, same
from tests.link.lies import LEVELS

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("level", LEVELS, ids="-".join)
@pytest.mark.parametrize("name", GRAPH_NAMES)
def test_claims_in_pieces_are_right_at_every_level(
    name: str, level: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pieces so small that claims take several and the ring comes round; the trusted side alone decides on them."""
    monkeypatch.setattr(layouts, "_PIECE_SIZE", 4096)
    monkeypatch.setattr(layouts, "_GRAIN", 16)
    protection, schedule = level
    with Session(plan_of(name), protection=protection, schedule=schedule, worker_device="cuda", threads=2,
                 micro_batches=3) as session:  # fmt: skip
        for batch in (2, 61, 1):
            images, expected = case_of(name, batch)
            assert same(session.run(images), expected)


@pytest.mark.parametrize("protection", ["verified", "private"])
def test_one_worker_after_another(protection: str) -> None:
    """Each leaves the GPU as it was."""
    images, expected = case_of("residual", 61)
    for _ in range(2):
        with Session(plan_of("residual"), protection=protection, worker_device="cuda", threads=1) as session:
            assert same(session.run(images), expected)
