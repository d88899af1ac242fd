"""The one door from a claim to a verified value: every check sees one changed element, and each is used once."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from slalom.arithmetic import field
from slalom.arithmetic.dispatch import make_dispatch
from slalom.arithmetic.linear import apply_maps
from slalom.arithmetic.transpose import transpose_maps
from slalom.errors import IntegrityError
from slalom.plan.steps import Linear
from slalom.session import Session
from slalom.trusted.checker import CheckBook, Examined, Verified
from slalom.trusted.model import TrustedModel, make_model
from slalom.trusted.policy import Check, Policy, Protection
from slalom.trusted.probes import ProbeSource, make_probe_source
from slalom.trusted.randomness import Randomness
from tests.devices import GRAPH_NAMES, NumpyDevice, case_of, linear_steps_of, plan_of, same
from tests.trusted.statistics import LIMIT, chi_square_p

CASES = [(name, step) for name in GRAPH_NAMES for step in linear_steps_of(name)]
BATCH = 3


@dataclasses.dataclass
class Bench:
    """A check book for one plan, and what is needed to fill it by hand."""

    model: TrustedModel
    source: ProbeSource
    book: CheckBook
    randomness: Randomness

    def prepare(self, step: Linear, x: np.ndarray) -> None:
        """Opens a check and records <x, t>."""
        self.book.open_check(step)
        rows = x.reshape(len(x), -1)
        parts = [
            np.stack([field.dot(rows[part], t) for t in self.book.probe_images(step, group)], axis=1)
            for group, part in enumerate(self.book.groups)
        ]
        self.book.expect(step, np.concatenate(parts))

    def examine(self, step: Linear, y: np.ndarray) -> Examined:
        """What a pass makes of a claim."""
        rows = y.reshape(len(y), -1)
        parts = [
            np.stack([field.dot(rows[part], s) for s in self.book.probes(step, group)], axis=1)
            for group, part in enumerate(self.book.groups)
        ]
        return Examined(step.name, rows.astype(np.float32), np.concatenate(parts))


def make_bench(name: str, check: Check, rounds: int = 1, batch: int = BATCH) -> Bench:
    policy, randomness = Policy(Protection.VERIFIED, check, rounds), Randomness()
    model = make_model(plan_of(name))
    source = make_probe_source(model, plan_of(name), policy, randomness, make_dispatch(threads=1))
    return Bench(model, source, CheckBook(source, check, batch, randomness), randomness)


def draw(bench: Bench, step: Linear, batch: int = BATCH) -> np.ndarray:
    """A random input of a step, within its limits, both ends among them."""
    kind: Any = bench.model.types[step.source]
    x = np.random.default_rng(5).integers(-kind.limit, kind.limit + 1, (batch, *kind.shape)).astype(np.int16)
    x.reshape(-1)[:2] = kind.limit, -kind.limit
    return x


def changes(y: np.ndarray) -> list[tuple[tuple[int, ...], int]]:
    """One element of one item each: places over the whole claim, errors of every size and sign."""
    random = np.random.default_rng(6)
    places = [0, y.size - 1, *(int(place) for place in random.integers(0, y.size, 6))]
    errors = [1, -1, 2**31, 2**8, -(2**16), 2**30, field.P % 2**32, 3]
    return [(tuple(map(int, np.unravel_index(p, y.shape))), e) for p, e in zip(places, errors, strict=True)]


@pytest.mark.parametrize("check", list(Check))
@pytest.mark.parametrize(("name", "step_name"), CASES)
def test_every_check_takes_the_truth_and_no_changed_element(name: str, step_name: str, check: Check) -> None:
    bench = make_bench(name, check)
    step = bench.model.linear_steps[step_name]
    x = draw(bench, step)
    y = apply_maps(step.maps, plan_of(name).tensors, x)
    bench.prepare(step, x)
    verified = bench.book.check_claim(bench.examine(step, y))
    assert isinstance(verified, Verified)
    np.testing.assert_array_equal(verified.values, y.reshape(BATCH, -1).astype(np.float32))
    for place, error in changes(y):
        lie = y.copy()
        lie[place] = np.int64(int(lie[place]) + error).astype(np.int32)  # mod 2^32
        assert np.count_nonzero(lie != y) == 1
        bench.prepare(step, x)
        with pytest.raises(IntegrityError) as raised:
            bench.book.check_claim(bench.examine(step, lie))
        assert raised.value.step == step_name


@pytest.mark.parametrize("check", list(Check))
@pytest.mark.parametrize("swap", ["items", "channels", "input"])
def test_true_words_in_the_wrong_place(check: Check, swap: str) -> None:
    """Items of the batch exchanged, channels exchanged, and the truth about another input."""
    bench = make_bench("residual", check)
    step = bench.model.linear_steps["conv2"]
    x = draw(bench, step)
    y = apply_maps(step.maps, plan_of("residual").tensors, x)
    if swap == "items":
        lie = y[[1, 0, 2]]
    elif swap == "channels":
        lie = np.ascontiguousarray(y[..., [1, 0, 2, 3]])
    else:
        lie = apply_maps(step.maps, plan_of("residual").tensors, np.roll(x, 1, axis=1))
    bench.prepare(step, x)
    with pytest.raises(IntegrityError):
        bench.book.check_claim(bench.examine(step, lie))


@pytest.mark.parametrize("check", list(Check))
def test_errors_of_two_items_do_not_cancel(check: Check) -> None:
    """+e in one item and -e at the same place in another: what a sum over the batch would miss."""
    bench = make_bench("dense", check)
    step = bench.model.linear_steps["fc1"]
    x = draw(bench, step)
    y = apply_maps(step.maps, plan_of("dense").tensors, x)
    y[0, 3] += 5
    y[1, 3] -= 5
    bench.prepare(step, x)
    with pytest.raises(IntegrityError):
        bench.book.check_claim(bench.examine(step, y))


@pytest.mark.parametrize("rounds", [1, 2, 5])
@pytest.mark.parametrize("check", list(Check))
def test_every_round_must_hold(check: Check, rounds: int) -> None:
    """A dot that is wrong in one round alone is enough."""
    for wrong in range(rounds):
        bench = make_bench("dense", check, rounds)
        step = bench.model.linear_steps["fc1"]
        x = draw(bench, step)
        bench.prepare(step, x)
        examined = bench.examine(step, apply_maps(step.maps, plan_of("dense").tensors, x))
        assert examined.claim_dots.shape == (BATCH, rounds)
        examined.claim_dots[BATCH - 1, wrong] = (int(examined.claim_dots[BATCH - 1, wrong]) + 1) % field.P
        with pytest.raises(IntegrityError, match="failed its check"):
            bench.book.check_claim(examined)


@pytest.mark.parametrize("check", list(Check))
def test_a_claim_without_a_prepared_check_is_refused(check: Check) -> None:
    bench = make_bench("dense", check)
    step = bench.model.linear_steps["fc1"]
    dots = np.zeros((BATCH, 1), np.uint64)
    with pytest.raises(IntegrityError, match="no check was prepared"):
        bench.book.check_claim(Examined("fc1", np.zeros((BATCH, 9), np.float32), dots))
    x = draw(bench, step)
    bench.prepare(step, x)
    with pytest.raises(IntegrityError, match="no check was prepared"):
        bench.book.check_claim(Examined("fc2", np.zeros((BATCH, 4), np.float32), dots))


@pytest.mark.parametrize("check", list(Check))
def test_a_check_is_used_once(check: Check) -> None:
    bench = make_bench("dense", check)
    step = bench.model.linear_steps["fc1"]
    x = draw(bench, step)
    bench.prepare(step, x)
    examined = bench.examine(step, apply_maps(step.maps, plan_of("dense").tensors, x))
    bench.book.check_claim(examined)
    with pytest.raises(IntegrityError, match="no check was prepared"):
        bench.book.check_claim(examined)


@pytest.mark.parametrize("shape", [(0, 1), (BATCH, 0), (BATCH - 1, 1), (BATCH, 2), (1, 1)])
def test_dots_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    """Above all dots of no rounds and of no items, which would agree with anything."""
    for expected in (shape, (BATCH, 1)):
        bench = make_bench("dense", Check.PREPROCESSED)
        step = bench.model.linear_steps["fc1"]
        bench.book.open_check(step)
        bench.book.expect(step, np.zeros(expected, np.uint64))
        examined = Examined("fc1", np.zeros((BATCH, 9), np.float32), np.zeros(shape, np.uint64))
        if shape == expected and shape[1] > 0:
            continue
        with pytest.raises(IntegrityError):
            bench.book.check_claim(examined)


@pytest.mark.parametrize("rounds", [1, 3])
@pytest.mark.parametrize("name", GRAPH_NAMES)
def test_preprocessed_probes(name: str, rounds: int) -> None:
    """Different for every step and round, t = W^T s, the same for every batch, and counted in bytes."""
    plan, bench = plan_of(name), make_bench(name, Check.PREPROCESSED, rounds)
    seen, size = set(), {"probes": 0, "probe_images": 0}
    for step in bench.model.linear_steps.values():
        (probes,) = bench.source.draw(step, 1)
        assert bench.source.draw(step, 7)[0] is probes
        assert len(probes) == rounds
        for probe in probes:
            shaped = probe.probe.reshape(step.output.shape)
            image = transpose_maps(step.maps, plan.tensors, bench.model.shape(step.source), shaped)
            np.testing.assert_array_equal(probe.image, image.reshape(-1))
            assert int(probe.probe.max()) < field.P
            seen.add(probe.probe.tobytes())
            size["probes"] += probe.probe.nbytes
            size["probe_images"] += probe.image.nbytes
    assert len(seen) == rounds * len(bench.model.linear_steps)
    assert bench.source.held_bytes == size


@pytest.mark.parametrize("check", [Check.DIRECT, Check.BATCHED])
@pytest.mark.parametrize("name", GRAPH_NAMES)
def test_fresh_probes(name: str, check: Check) -> None:
    """Drawn anew every time, one set an item for `direct`; and t = W^T s."""
    plan, bench = plan_of(name), make_bench(name, check, 2)
    seen = []
    for step in bench.model.linear_steps.values():
        for _ in range(2):
            sets = bench.source.draw(step, BATCH)
            assert len(sets) == (BATCH if check is Check.DIRECT else 1)
            for probe in (probe for rounds in sets for probe in rounds):
                shaped = probe.probe.reshape(step.output.shape)
                image = transpose_maps(step.maps, plan.tensors, bench.model.shape(step.source), shaped)
                np.testing.assert_array_equal(probe.image, image.reshape(-1))
                assert int(probe.probe.max()) < field.P
                seen.append(probe.probe.tobytes())
    assert len(set(seen)) == len(seen)


@pytest.mark.parametrize("check", list(Check))
def test_probes_are_spread_over_the_whole_field(check: Check) -> None:
    """Each sixteenth of F_p, and each value of the lowest four bits, as often as any other.

    Of a (x) b only one row and one column are counted: those elements are independent.
    """
    elements: list[np.ndarray] = []
    for _ in range(8 if check is Check.PREPROCESSED else 1):
        bench = make_bench("depthwise", check, rounds=64)
        for step in bench.model.linear_steps.values():
            for probe in bench.source.draw(step, 1)[0]:
                table = probe.probe.reshape(-1, step.output.shape[-1])
                elements += [table[0], table[1:, 0]]
    drawn = np.concatenate(elements)
    assert drawn.size > 2**12
    assert chi_square_p((drawn * np.uint64(16) // np.uint64(field.P)).astype(np.int64), 16) > LIMIT
    assert chi_square_p((drawn % np.uint64(16)).astype(np.int64), 16) > LIMIT


@pytest.mark.parametrize(("second_round", "accepted"), [((1, 1), True), ((1, 2), False)])
def test_every_round_combines_the_batch_with_coefficients_of_its_own(
    second_round: tuple[int, int], accepted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Errors that cancel under the first round's coefficients are seen under the second's, unless those agree."""
    bench = make_bench("dense", Check.BATCHED, rounds=2, batch=2)
    step = bench.model.linear_steps["fc1"]
    x = draw(bench, step, 2)
    bench.prepare(step, x)
    examined = bench.examine(step, apply_maps(step.maps, plan_of("dense").tensors, x))
    examined.claim_dots[0] = field.add(examined.claim_dots[0], np.full(2, 5, np.uint64))
    examined.claim_dots[1] = field.subtract(examined.claim_dots[1], np.full(2, 5, np.uint64))
    coefficients = np.array([1, 1, *second_round], np.uint64)
    monkeypatch.setattr(bench.randomness, "draw_field", lambda count: coefficients[:count])
    if accepted:
        assert isinstance(bench.book.check_claim(examined), Verified)
    else:
        with pytest.raises(IntegrityError, match="failed its check"):
            bench.book.check_claim(examined)


def test_two_sessions_draw_other_probes() -> None:
    """Whatever seeds Python and NumPy were given."""
    probes = []
    for _ in range(2):
        np.random.seed(0)
        bench = make_bench("dense", Check.PREPROCESSED)
        probes.append(bench.source.draw(bench.model.linear_steps["fc1"], 1)[0][0].probe)
    assert not np.any(probes[0] == probes[1])


class OneOff(NumpyDevice):
    """Adds one unit of much weight to one element of the last step's claim."""

    def linear(self, step: Linear, words: np.ndarray) -> np.ndarray:
        claim = super().linear(step, words)
        if step.name == "fc":
            claim[0, 0] += 2**20
        return claim


@pytest.mark.parametrize("schedule", ["ahead", "layerwise"])
@pytest.mark.parametrize("check", list(Check))
@pytest.mark.parametrize("protection", ["verified", "private"])
def test_the_check_alone_stands_between_the_lie_and_the_user(
    protection: str, check: str, schedule: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the check taken out, the very lie that it refuses is returned: these tests can fail."""
    images, expected = case_of("residual", 3)
    arguments: dict[str, Any] = {"protection": protection, "check": check, "schedule": schedule}
    with Session(plan_of("residual"), device=OneOff(), **arguments) as session, pytest.raises(IntegrityError):
        session.run(images)
    monkeypatch.setattr(CheckBook, "check_claim", lambda self, examined: Verified(examined.values))
    with Session(plan_of("residual"), device=OneOff(), **arguments) as session:
        output = session.run(images)
    assert not same(output, expected)
    assert same(output[1], [expected[0][1]])  # type: ignore[index]
