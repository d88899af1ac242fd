"""A mask is used once, its image is W r, and an unused one is overwritten at the end."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest

from slalom.arithmetic.dispatch import make_dispatch
from slalom.arithmetic.engine import LinearEngine
from slalom.arithmetic.linear import apply_maps
from slalom.errors import PrivacyError
from slalom.trusted.bank import MaskBank
from slalom.trusted.masks import Mask, MaskMaker, SpentMask, prepare_maps
from slalom.trusted.model import make_model
from slalom.trusted.randomness import Randomness
from tests.devices import plan_of


def make_bank(name: str = "every_step") -> tuple[MaskBank, Randomness]:
    plan = plan_of(name)
    dispatch = make_dispatch(threads=1)
    model, engine, randomness = make_model(plan), LinearEngine(dispatch), Randomness()
    return MaskBank(MaskMaker(model, engine, prepare_maps(engine, model, plan), randomness, dispatch)), randomness


def held(bank: MaskBank) -> int:
    return bank.figures.ready_bytes


@pytest.mark.parametrize("prepared", [False, True])
@pytest.mark.parametrize("name", ["every_step", "conv_chain", "sequence_dense"])
def test_images_are_the_linear_maps_of_the_words(name: str, prepared: bool) -> None:
    plan = plan_of(name)
    model = make_model(plan)
    bank, _ = make_bank(name)
    if prepared:
        bank.prepare(3)
        assert held(bank) > 0
    (masks,) = bank.reserve([3], 1.0)
    for value, steps in model.flow.consumers.items():
        mask = masks.take(value)
        assert mask.words.dtype == np.int32
        assert mask.words.shape == (3, model.count(value))
        assert set(mask.images) == {step.name for step in steps}
        for step in steps:
            expected = apply_maps(step.maps, plan.tensors, mask.words.reshape(3, *model.shape(value)))
            np.testing.assert_array_equal(mask.images[step.name], expected.reshape(3, -1))
    assert held(bank) == 0
    assert bank.maker.made == len(model.flow.consumers)
    assert (bank.maker.inline_seconds == 0) == prepared


def test_a_mask_is_spent_once() -> None:
    words = np.ones((2, 3), np.int32)
    mask = Mask(words, {})
    assert mask.spend().words is words
    for _ in range(2):
        with pytest.raises(PrivacyError, match="a mask may be used once"):
            mask.spend()


def test_eight_threads_spend_a_mask_once() -> None:
    for _ in range(50):
        mask, outcomes, barrier = Mask(np.ones((1, 4), np.int32), {}), [], threading.Barrier(8)

        def spend(mask: Mask = mask, barrier: Any = barrier, outcomes: Any = outcomes) -> None:
            barrier.wait()
            try:
                mask.spend()
                outcomes.append(True)
            except PrivacyError:
                outcomes.append(False)

        threads = [threading.Thread(target=spend) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(outcomes) == [False] * 7 + [True]


def test_a_destroyed_mask_is_empty_and_cannot_be_spent() -> None:
    words, image = np.ones((1, 4), np.int32), np.ones((1, 4), np.int32)
    mask = Mask(words, {"fc": image})
    mask.destroy()
    assert not image.any() and not words.any()
    with pytest.raises(PrivacyError):
        mask.spend()


def test_masks_never_repeat_prepared_or_not_under_eight_threads() -> None:
    bank, _ = make_bank("dense")
    for _ in range(20):
        bank.prepare(2)
    taken: list[bytes] = []

    def take() -> None:
        for _ in range(20):
            (masks,) = bank.reserve([2], 1.0)
            taken.extend(masks.take(value).words.tobytes() for value in ("image", "hidden"))

    threads = [threading.Thread(target=take) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(taken) == 320
    words = np.frombuffer(b"".join(taken), np.int32)
    assert len(set(taken)) == 320
    rows = np.concatenate([np.frombuffer(item, np.int32).reshape(2, -1)[:, :9] for item in taken])
    assert len({row.tobytes() for row in rows}) == len(rows) == 640  # nor do two items of a batch share one
    assert np.unique(words).size > 0.99 * words.size


@pytest.mark.parametrize("name", ["every_step", "conv_chain"])
def test_a_smaller_batch_takes_part_of_a_larger_set_and_the_rest_is_overwritten(name: str) -> None:
    plan, (bank, _) = plan_of(name), make_bank(name)
    model = make_model(plan)
    bank.prepare(4)
    whole = {value: mask._secret for value, mask in bank._ready[4][0]._masks.items()}
    (masks,) = bank.reserve([3], 1.0)
    assert held(bank) == 0
    for value, steps in model.flow.consumers.items():
        mask = masks.take(value)
        assert mask.words.shape == (3, model.count(value)) and mask.words.any()
        assert not whole[value].words[3:].any()
        for step in steps:
            expected = apply_maps(step.maps, plan.tensors, mask.words.reshape(3, *model.shape(value)))
            np.testing.assert_array_equal(mask.images[step.name], expected.reshape(3, -1))
            assert not whole[value].images[step.name][3:].any()


def test_a_larger_batch_takes_another_mask() -> None:
    bank, _ = make_bank("dense")
    bank.prepare(2)
    before = held(bank)
    (masks,) = bank.reserve([3], 1.0)
    assert masks.take("image").words.shape == (3, 13)
    assert held(bank) == before


def test_a_set_gives_each_value_once() -> None:
    bank, _ = make_bank("dense")
    for prepared in (True, False):
        if prepared:
            bank.prepare(2)
        (masks,) = bank.reserve([2], 1.0)
        masks.take("image")
        with pytest.raises(PrivacyError, match="a mask may be used once"):
            masks.take("image")


def test_destroying_the_bank_overwrites_the_unused() -> None:
    bank, _ = make_bank()
    bank.prepare(2)
    secrets = [mask._secret for ready in bank._ready.values() for item in ready for mask in item._masks.values()]
    images = [image for secret in secrets if isinstance(secret, SpentMask) for image in secret.images.values()]
    assert images and all(image.any() for image in images)
    bank.destroy()
    assert not any(image.any() for image in images)
    assert held(bank) == 0


def test_nothing_is_taken_after_the_secrets_are_destroyed() -> None:
    bank, randomness = make_bank("dense")
    bank.prepare(1)
    randomness.destroy()
    (masks,) = bank.reserve([1], 1.0)
    for value in ("image", "hidden"):
        with pytest.raises(PrivacyError):
            masks.take(value)
