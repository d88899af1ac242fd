"""What the device receives in `private` and `blinded`: uniform noise that never repeats, whatever the image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

import reference.network
from slalom.errors import IntegrityError
from slalom.plan.steps import Linear
from slalom.session import Session
from tests.devices import NumpyDevice, case_of, plan_of, same
from tests.trusted.statistics import LIMIT, uniformity

NAME = "depthwise"
REQUESTS = 60


class Spy(NumpyDevice):
    """Honest, and keeps a copy of all it is given."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, np.ndarray]] = []

    def compute(self, step_names: Sequence[str], words: np.ndarray) -> Sequence[np.ndarray]:
        self.seen += [(",".join(step_names), words.copy())]
        return super().compute(step_names, words)

    def run_ahead(self, activation: np.ndarray) -> Any:
        raise AssertionError("the device was shown an activation")

    run = run_ahead


def watch(protection: str, images: np.ndarray, requests: int, **more: Any) -> Spy:
    spy = Spy()
    with Session(plan_of(NAME), protection=protection, device=spy, threads=1, **more) as session:
        for _ in range(requests):
            session.run(images)
    return spy


def two_images() -> dict[str, np.ndarray]:
    """As different as images can be: black, and all at the limit."""
    return {"zeros": np.zeros((5, 3, 8, 8), np.float32), "limit": np.full((5, 3, 8, 8), 1e9, np.float32)}


@pytest.mark.parametrize("image", ["zeros", "limit"])
@pytest.mark.parametrize("protection", ["private", "blinded"])
def test_words_sent_are_uniform_and_never_repeat(protection: str, image: str) -> None:
    spy = watch(protection, two_images()[image], REQUESTS)
    words = np.concatenate([words.reshape(-1) for _, words in spy.seen])
    assert words.dtype == np.int32
    assert words.size > 2**17
    assert uniformity(words) > LIMIT
    for step in {name for name, _ in spy.seen}:
        assert uniformity(np.concatenate([sent.reshape(-1) for name, sent in spy.seen if name == step])) > LIMIT
    items = [item.tobytes() for _, sent in spy.seen for item in sent]
    assert len(set(items)) == len(items)
    # differences between requests of one image are what a reused mask would leave bare
    first = [sent for name, sent in spy.seen if name == "stem"]
    differences = np.concatenate([(a - b).reshape(-1) for a, b in zip(first, first[2:], strict=False)])
    assert uniformity(differences) > LIMIT
    assert np.count_nonzero(differences == 0) < 8


def test_the_statistic_sees_an_unblinded_image() -> None:
    """Teeth: the same spy at a level that shows activations, and at `private` with every mask zero."""
    images, _ = case_of(NAME, 5)
    spy = watch("verified", images, 10, schedule="layerwise")
    assert {sent.dtype for _, sent in spy.seen} == {np.dtype(np.int16)}
    assert uniformity(np.concatenate([sent.reshape(-1) for _, sent in spy.seen]).astype(np.int32)) < LIMIT


def test_the_statistic_sees_a_mask_that_is_reused(monkeypatch: pytest.MonkeyPatch) -> None:
    from slalom.trusted.randomness import Randomness

    monkeypatch.setattr(Randomness, "draw_stream", lambda self: 7)
    spy = watch("blinded", np.zeros((5, 3, 8, 8), np.float32), 3)
    items = [item.tobytes() for _, sent in spy.seen for item in sent]
    assert len(set(items)) < len(items)


@pytest.mark.parametrize("protection", ["private", "blinded"])
def test_no_activation_is_ever_sent(protection: str) -> None:
    """No word sent is the value it hides, beyond chance: 2^-32 a word."""
    images, expected = case_of(NAME, 5)
    plan = plan_of(NAME)
    values = reference.network.run_activations(plan.graph, dict(plan.tensors), images)
    sources = {step.name: values[step.source] for step in plan.graph.steps if isinstance(step, Linear)}
    spy = Spy()
    with Session(plan, protection=protection, device=spy, micro_batches=1) as session:
        for _ in range(10):
            assert same(session.run(images), expected)
    for name, sent in spy.seen:
        assert np.count_nonzero(sent == sources[name]) < 4
        assert np.count_nonzero(np.abs(sent.astype(np.int64)) < 2**12) < 16  # of some 1000 words, 2^-19 of them


def test_every_word_of_every_item_is_masked_on_its_own() -> None:
    """One item of one request says nothing about another's, nor one step about the next: all differences are noise."""
    spy = watch("private", np.zeros((5, 3, 8, 8), np.float32), REQUESTS, micro_batches=1)
    across_items = np.concatenate([(sent[1:] - sent[:-1]).reshape(-1) for _, sent in spy.seen])
    along = np.concatenate([np.diff(sent.reshape(len(sent), -1)).reshape(-1) for _, sent in spy.seen])
    assert uniformity(across_items) > LIMIT
    assert uniformity(along) > LIMIT


def test_what_is_sent_has_the_same_form_for_every_image() -> None:
    """Steps, shapes and types towards the device depend on the plan and the batch alone."""
    forms = []
    for images in two_images().values():
        forms.append([(name, sent.shape, sent.dtype) for name, sent in watch("private", images, 2).seen])
    assert forms[0] == forms[1]


def test_a_retry_draws_new_masks() -> None:
    """After a failed request the next session sends other words for the same image."""
    images, _ = case_of(NAME, 2)

    class SpyingLiar(Spy):
        def linear(self, step: Linear, words: np.ndarray) -> np.ndarray:
            return super().linear(step, words) + np.int32(step.name == "fc")

    seen: list[bytes] = []
    for _ in range(4):
        spy = SpyingLiar()
        with Session(plan_of(NAME), protection="private", device=spy) as session, pytest.raises(IntegrityError):
            session.run(images)
        seen += [item.tobytes() for _, sent in spy.seen for item in sent]
    assert len(seen) == len(set(seen)) > 20


def test_secrets_have_no_representation() -> None:
    """A log, a debugger or a traceback with locals prints what `repr` gives."""
    from slalom.arithmetic.fused import PassInput, PassOutput
    from slalom.trusted.checker import Examined, Verified
    from slalom.trusted.masks import SpentMask
    from slalom.trusted.probes import Probe

    secret = np.full((1, 3), 123456789, np.int32)
    field = secret.astype(np.uint64)[0]
    holders: list[Any] = [
        Probe(field, field),
        SpentMask(secret, {"fc": secret}),
        Examined("fc", secret.astype(np.float32), field),
        Verified(secret.astype(np.float32)),
        PassInput(secret, secret, (field,), None, {}, (field,), secret),
        PassOutput(secret.astype(np.float32), field, field, secret),
    ]
    for holder in holders:
        assert "123456789" not in repr(holder) and "1.2345" not in repr(holder)
