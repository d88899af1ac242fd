"""Every attack tells a lie exactly where it says, at every step it may choose, and nowhere else."""

from __future__ import annotations

import numpy as np
import pytest

from reference.network import enter
from slalom import attacks
from slalom.arithmetic.field import P
from slalom.attacks.elements import border_position, short_orthogonal
from slalom.attacks.forms import FormCheat
from slalom.device.engine import TorchEngine
from slalom.device.local import LocalDevice
from slalom.errors import ApiMisuse
from slalom.plan import Plan
from slalom.plan.steps import Linear
from tests.arithmetic.geometries import draw_words
from tests.graphs import every_step_graph, images, residual_graph

ENGINE = TorchEngine()
PLAN = Plan(*every_step_graph())
STEPS = [step.name for step in PLAN.graph.steps if isinstance(step, Linear)]
FORMS = ("wrong_shape", "wrong_dtype", "short_answer", "extra_answer", "out_of_order")
OWN_STEP = {"first_layer": STEPS[0], "last_layer": STEPS[-1]}
VALUES = tuple(name for name in attacks.names() if name not in FORMS)


def make(name: str, step: str | None = None, seed: int = 0, plan: Plan = PLAN) -> attacks.CheatingDevice:
    device = attacks.make(name, seed=seed, step=step, engine=ENGINE)
    device.load(plan)
    return device


def honest_device(plan: Plan = PLAN) -> LocalDevice:
    device = LocalDevice(engine=ENGINE)
    device.load(plan)
    return device


HONEST = honest_device()


def cases(names: tuple[str, ...]) -> list[tuple[str, str]]:
    return [(name, step) for name in names for step in ([OWN_STEP[name]] if name in OWN_STEP else STEPS)]


def activation(seed: int, batch: int = 2) -> np.ndarray:
    return enter(PLAN.graph, images(PLAN.graph, batch, seed))


def words_for(step: str, seed: int, batch: int = 2) -> np.ndarray:
    source = next(item.source for item in PLAN.graph.steps if item.name == step)  # type: ignore[union-attr]
    return draw_words(np.random.default_rng(seed), (batch, *PLAN.types[source].shape), np.int32)


def lies_within(name: str, device: attacks.CheatingDevice, words: np.ndarray, honest: np.ndarray) -> None:
    assert type(words) is np.ndarray and words.dtype == np.int32 and words.flags.c_contiguous
    assert words.shape == honest.shape
    assert not np.array_equal(words, honest), name
    assert device.told and device.lies == 1


@pytest.mark.parametrize(("name", "step"), cases(VALUES))
def test_an_exchange_is_false_at_the_target_alone(name: str, step: str) -> None:
    device = make(name, step)
    assert not device.told
    for request in range(device.acts_from):
        for other in STEPS:
            words = words_for(other, seed=request)
            (honest,) = HONEST.compute([other], words)
            (claim,) = device.compute([other], words.copy())
            if other == step and request == device.acts_from - 1:
                lies_within(name, device, claim, honest)
            else:
                np.testing.assert_array_equal(claim, honest)
    assert device.lies == 1


@pytest.mark.parametrize(("name", "step"), cases(VALUES))
def test_a_run_ahead_is_true_up_to_the_target_and_goes_on_from_the_lie(name: str, step: str) -> None:
    device = make(name, step)
    for request in range(device.acts_from):
        honest = {claim.step: claim.words for claim in HONEST.run_ahead(activation(request))}
        before = device.lies
        claims = list(device.run_ahead(activation(request)))
    assert [claim.step for claim in claims] == STEPS
    for claim in claims[: STEPS.index(step)]:
        np.testing.assert_array_equal(claim.words, honest[claim.step])
    assert before == 0
    lies_within(name, device, claims[STEPS.index(step)].words, honest[step])


@pytest.mark.parametrize("name", VALUES)
def test_the_mirror_goes_on_from_the_lie(name: str) -> None:
    """What follows the lie is the network's own answer to it: an honest device fed with the lie says the same."""

    class Fed(LocalDevice):
        def linear(self, step: Linear, words: np.ndarray) -> np.ndarray:
            return told[step.name] if step.name == device.target else super().linear(step, words)

    device = make(name)
    for request in range(device.acts_from):
        told = {claim.step: claim.words for claim in device.run_ahead(activation(request))}
    fed = Fed(engine=ENGINE)
    fed.load(PLAN)
    for claim in fed.run_ahead(activation(device.acts_from - 1)):
        np.testing.assert_array_equal(claim.words, told[claim.step])


@pytest.mark.parametrize("name", VALUES)
@pytest.mark.parametrize("batch", [1, 3])
def test_a_lie_is_told_whatever_the_data(name: str, batch: int) -> None:
    """On zeros, where most lies would be the truth, and on one request twice."""
    for step in [OWN_STEP[name]] if name in OWN_STEP else STEPS:
        device = make(name, step)
        words = np.zeros_like(words_for(step, seed=1, batch=batch))
        (honest,) = HONEST.compute([step], words)
        for _ in range(device.acts_from):
            (claim,) = device.compute([step], words)
        lies_within(name, device, claim, honest)


@pytest.mark.parametrize("name", VALUES)
def test_the_outputs_of_an_unprotected_run_hold_the_lie(name: str) -> None:
    device = make(name)
    for request in range(device.acts_from):
        assert not device.told
        outputs = device.run(activation(request))
    assert device.lies == 1
    assert [output.shape for output in outputs] == [output.shape for output in HONEST.run(activation(0))]


@pytest.mark.parametrize("name", attacks.names())
def test_the_default_step_is_in_the_middle_and_the_seed_decides(name: str) -> None:
    first, again = make(name, seed=3), make(name, seed=3)
    assert first.target == OWN_STEP.get(name, STEPS[len(STEPS) // 2])
    for device in (first, again):
        device.load(PLAN)
    for request in range(first.acts_from):
        ours, theirs = (device.compute([first.target], words_for(first.target, request)) for device in (first, again))
    assert len(ours) == len(theirs)
    for mine, other in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(mine, other)


# ---------------------------------------------------------------- what each lie is


def lie_of(name: str, step: str, seed: int = 0) -> tuple[np.ndarray, np.ndarray, attacks.CheatingDevice]:
    device = make(name, step, seed)
    for request in range(device.acts_from):
        words = words_for(step, request)
        (claim,) = device.compute([step], words)
    return HONEST.compute([step], words)[0], claim, device


@pytest.mark.parametrize("step", STEPS)
def test_element_lies(step: str) -> None:
    for name, expected in (("add_2_31", 2**31), ("add_modulus_low", P % 2**32), ("border", 1)):
        honest, claim, _ = lie_of(name, step)
        assert np.count_nonzero(claim != honest) == 1
        assert int((claim.astype(np.int64) - honest).sum()) % 2**32 == expected
    for name in ("flip_element", *(own for own, place in OWN_STEP.items() if place == step)):
        honest, claim, _ = lie_of(name, step)
        assert sum(int(word).bit_count() for word in (claim ^ honest).view(np.uint32).reshape(-1)) == 1


@pytest.mark.parametrize("step", STEPS)
def test_whole_lies(step: str) -> None:
    flat = HONEST.compute([step], words_for(step, 0))[0].astype(np.int64)
    expected = {"scale": 2 * flat, "zero": 0 * flat, "negate": -flat, "swap_items": flat[::-1]}
    expected["shift"] = np.roll(flat.reshape(-1), 1).reshape(flat.shape)
    for name, words in expected.items():
        np.testing.assert_array_equal(lie_of(name, step)[1].astype(np.int64) % 2**32, words % 2**32, err_msg=name)


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("name", ["orthogonal_ones", "orthogonal_guess"])
def test_orthogonal_errors_pass_the_guessed_probe(name: str, step: str) -> None:
    for seed in range(3):
        honest, claim, _ = lie_of(name, step, seed)
        count = honest[0].size
        guess = [1] * count
        if name == "orthogonal_guess":
            guess = np.random.default_rng(seed).integers(1, P, count, dtype=np.uint64).tolist()
        for item in range(len(honest)):
            errors = (claim[item].astype(np.int64) - honest[item]).reshape(-1)
            errors = (errors + 2**31) % 2**32 - 2**31
            assert sum(int(error) * element for error, element in zip(errors, guess, strict=True)) % P == 0


def test_short_orthogonal_is_short_and_orthogonal() -> None:
    random = np.random.default_rng(7)
    for first, second in [(1, 1), (1, P - 1), (P - 1, 2), *random.integers(1, P, (200, 2)).tolist()]:
        a, b = short_orthogonal(first, second)
        assert (a, b) != (0, 0) and max(abs(a), abs(b)) < 2**26
        assert (a * first + b * second) % P == 0


def test_border_positions_read_the_padding() -> None:
    for step in STEPS:
        for prepared in HONEST.loaded.maps[step].maps:
            geometry = prepared.geometry
            row, column = border_position(geometry)
            (top, _, left, _), (height, width, _) = geometry.padding, geometry.input_image
            taps = [
                (row * geometry.stride[0] + a * geometry.dilation[0] - top,
                 column * geometry.stride[1] + b * geometry.dilation[1] - left)
                for a in range(geometry.kernel[0]) for b in range(geometry.kernel[1])
            ]  # fmt: skip
            outside = any(not (0 <= i < height and 0 <= j < width) for i, j in taps)
            assert outside == any(geometry.padding)


@pytest.mark.parametrize("step", STEPS)
def test_lies_of_memory(step: str) -> None:
    replay, late = make("replay", step), make("late_truth", step)
    truths = [HONEST.compute([step], words_for(step, request))[0] for request in range(3)]
    for request in range(3):
        words = words_for(step, request)
        np.testing.assert_array_equal(replay.compute([step], words)[0], truths[0])
        np.testing.assert_array_equal(late.compute([step], words)[0], truths[max(0, request - 1)])
    assert replay.lies == late.lies == 2


def test_the_other_step_of_equal_size_is_preferred() -> None:
    graph, tensors = residual_graph()
    plan = Plan(graph, tensors)
    device = make("other_step", "conv3", plan=plan)
    claims = {claim.step: claim.words for claim in device.run_ahead(enter(graph, images(graph, 2, 1)))}
    np.testing.assert_array_equal(claims["conv3"], claims["conv2"])


@pytest.mark.parametrize("step", STEPS)
def test_float_arithmetic_is_exact_below_2_24_and_not_above(step: str) -> None:
    honest, claim, _ = lie_of("float_arithmetic", step)
    assert np.count_nonzero(claim != honest) > claim.size // 4
    # |sums| <= 6 * 16 * 127^2 < 2^24: the truth, so the smallest error takes its place
    small = np.sign(words_for(step, 1))
    (honest,), (claim,) = (device.compute([step], small) for device in (HONEST, make("float_arithmetic", step)))
    errors = claim.astype(np.int64) - honest
    assert np.count_nonzero(errors) == 1 and errors.sum() == 1


# ---------------------------------------------------------------- answers of another form


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("name", FORMS)
def test_forms_of_an_exchange(name: str, step: str) -> None:
    device = make(name, step)
    assert isinstance(device, FormCheat)
    others = [other for other in STEPS if other != step]
    for other in others:
        words = words_for(other, 1)
        np.testing.assert_array_equal(device.compute([other], words)[0], HONEST.compute([other], words)[0])
    assert not device.told
    words = words_for(step, 1)
    (honest,) = HONEST.compute([step], words)
    answer = device.compute([step], words)
    assert device.lies == 1
    assert len(answer) == {"short_answer": 0, "extra_answer": 2}.get(name, 1)
    if name == "wrong_shape":
        assert answer[0].shape == (honest.size - 1,)
    elif name == "wrong_dtype":
        assert answer[0].dtype == np.int64 and answer[0].shape == honest.shape
        np.testing.assert_array_equal(answer[0] % 2**32, honest.astype(np.int64) % 2**32)
    elif name == "out_of_order":
        np.testing.assert_array_equal(answer[0], HONEST.compute([others[-1]], words_for(others[-1], 1))[0])


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("name", FORMS)
def test_forms_of_a_run_ahead(name: str, step: str) -> None:
    device = make(name, step)
    honest = {claim.step: claim.words for claim in HONEST.run_ahead(activation(1))}
    claims = list(device.run_ahead(activation(1)))
    place = STEPS.index(step)
    assert device.lies == (2 if name == "out_of_order" else 1)
    expected = STEPS[:place] if name == "short_answer" else list(STEPS)
    if name == "extra_answer":
        expected.insert(place, step)
    assert [claim.step for claim in claims] == expected
    false = [claim for claim in claims if not np.array_equal(claim.words, honest[claim.step])]
    if name == "out_of_order":
        first = min(place, len(STEPS) - 2)
        assert [claim.step for claim in false] == STEPS[first : first + 2]
        np.testing.assert_array_equal(false[0].words, honest[STEPS[first + 1]])
        np.testing.assert_array_equal(false[1].words, honest[STEPS[first]])
    else:
        assert [claim.step for claim in false] == ([] if name == "short_answer" else [step])


def test_two_claims_of_one_exchange_change_places() -> None:
    device = make("out_of_order", STEPS[0])
    words = words_for(STEPS[0], 1)
    claims = device.compute([STEPS[0], STEPS[0]], words)
    assert device.lies == 2 and len(claims) == 2
    (honest,) = HONEST.compute([STEPS[0]], words)
    assert all(not np.array_equal(claim, honest) for claim in claims)


# ---------------------------------------------------------------- the table


def test_the_table_describes_every_attack_in_a_line() -> None:
    assert len(set(attacks.names())) == len(attacks.names()) >= 24
    for attack in attacks.ATTACKS.values():
        assert 10 < len(attack.description) < 80 and "\n" not in attack.description
    assert len({attack.device for attack in attacks.ATTACKS.values()}) == len(attacks.ATTACKS)


def test_unknown_names_and_steps_are_refused() -> None:
    with pytest.raises(ApiMisuse, match="no attack 'bribe'") as caught:
        attacks.make("bribe")
    assert caught.value.hint is not None and "flip_element" in caught.value.hint
    with pytest.raises(ApiMisuse, match="no linear step 'stem_out'") as caught:
        make("flip_element", "stem_out")
    assert caught.value.hint is not None and "stem" in caught.value.hint
    for name in OWN_STEP:
        with pytest.raises(ApiMisuse, match="alone"):
            make(name, STEPS[2])
    with pytest.raises(ApiMisuse, match="no plan"):
        _ = attacks.make("zero", engine=ENGINE).target
