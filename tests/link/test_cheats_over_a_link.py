"""Every cheating device, behind a link: refused as it is without one, and never a wrong output."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import pytest

from slalom import attacks
from slalom.errors import ApiMisuse, IntegrityError, SlalomError, WireError
from slalom.link import layout
from slalom.link.message import Bulk
from slalom.session import Session
from tests.devices import case_of, plan_of, same
from tests.link.lies import AHEAD, LAYERWISE, PRIVATE
from tests.link.serving import Servant, nothing_left, options_of, reach

BATCH = 3
NETWORK = "residual"
WAYS = [(AHEAD, Bulk.MEMFD), (LAYERWISE, Bulk.MEMFD), (PRIVATE, Bulk.MEMFD), (AHEAD, Bulk.INLINE)]
IN_PIECES = [(AHEAD, Bulk.MEMFD), (LAYERWISE, Bulk.MEMFD), (PRIVATE, Bulk.SHM)]
ELEMENTS = ("flip_element", "add_2_31", "first_layer", "last_layer")  # change one bit, maybe a high one
FORMS = ("wrong_shape", "wrong_dtype", "short_answer", "extra_answer", "out_of_order")  # a link sees these itself


@cache
def engine() -> Any:
    """One for all: it tests itself when it is made."""
    from slalom.device.engine import TorchEngine

    return TorchEngine()


@pytest.mark.parametrize(
    ("level", "bulk", "streams"),
    [*((*way, False) for way in WAYS), *((*way, True) for way in IN_PIECES)],
    ids=lambda value: "-".join(value) if isinstance(value, tuple) else str(value).lower(),
)
@pytest.mark.parametrize("attack", attacks.names())
def test_every_cheat_is_refused_over_a_link(
    attack: str, level: tuple[str, str], bulk: Bulk, streams: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layout, "_PIECE_SIZE", 4096)
    monkeypatch.setattr(layout, "_GRAIN", 16)
    cheat = attacks.make(attack, seed=0, step=None, threads=1, engine=engine())
    with nothing_left():
        found = error_of(cheat, level, bulk, streams)
    assert cheat.told
    if found is None:  # a bit that the three bytes of a packed claim have no room for
        assert bulk is Bulk.INLINE
        assert attack in ELEMENTS
    else:
        assert attack in FORMS or found is IntegrityError


def error_of(
    cheat: attacks.CheatingDevice, level: tuple[str, str], bulk: Bulk, streams: bool
) -> type[SlalomError] | None:
    """The error of the request with the lie, after which the session is over; None where the output is right."""
    options = replace(options_of(bulk, micro_batches=1), streams=streams)
    device = reach(lambda stream: Servant(cheat, stream), options)
    protection, schedule = level
    with Session(plan_of(NETWORK), protection=protection, schedule=schedule, device=device, threads=1,
                 micro_batches=1) as session:  # fmt: skip
        for request in range(cheat.acts_from):
            images, expected = case_of(NETWORK, BATCH, request)
            assert not cheat.told
            try:
                outputs = session.run(images)
            except (IntegrityError, WireError) as error:
                found = type(error)
                break
            assert same(outputs, expected)
        else:
            return None
        with pytest.raises(ApiMisuse, match="the session is over"):
            session.run(images)
    return found


def test_there_are_twenty_five() -> None:
    assert len(attacks.names()) == 25
