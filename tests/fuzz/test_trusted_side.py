"""The trusted side's reader: one message of a worker is changed anywhere; the output is right, or there is none."""

from __future__ import annotations

import numpy as np

from slalom.link.message import Bulk, Kind
from slalom.session import Session
from tests.devices import NumpyDevice, case_of, plan_of, same
from tests.fuzz.fuzzing import Budget, fuzz, number_words
from tests.link.hostile import Hostile, Lie, Said, Script, send_and_go
from tests.link.lies import AHEAD, LAYERWISE, PRIVATE
from tests.link.serving import Servant, nothing_left, options_of, reach
from tests.mutation import mutate

NETWORK = "dense"
LEVELS = (AHEAD, LAYERWISE, PRIVATE)
BULKS = (Bulk.MEMFD, Bulk.INLINE)


def attempt(random: np.random.Generator) -> str:
    def change(said: Said) -> bytes:
        whole = said.whole
        if random.integers(8) == 0:
            return random.bytes(int(random.integers(1, 200)))
        return mutate(whole, random, [*number_words(random), whole[:48]]) + whole * int(random.integers(2))

    lie = Lie(frozenset(Kind), send_and_go(change), int(random.integers(9)))
    script = Script(lie)
    protection, schedule = LEVELS[int(random.integers(len(LEVELS)))]
    options = options_of(BULKS[int(random.integers(2))])
    device = reach(lambda stream: Servant(NumpyDevice(), stream, lambda s: Hostile(s, script)), options)
    images, expected = case_of(NETWORK, 3)
    with Session(plan_of(NETWORK), protection=protection, schedule=schedule, device=device, threads=1) as session:
        for _ in range(2):
            assert same(session.run(images), expected)
    return "right"


def test_whatever_a_worker_says_no_output_is_wrong(fuzz_seconds: float) -> None:
    with nothing_left():
        outcomes = fuzz(attempt, Budget(fuzz_seconds, 128 * 2**20))
    assert outcomes.total() > 3 * fuzz_seconds
    assert len(outcomes) >= 5
    assert sum(count for text, count in outcomes.items() if text.startswith("WireError")) > outcomes.total() / 10
