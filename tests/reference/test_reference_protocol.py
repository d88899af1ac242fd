"""The five levels give the same outputs from an honest device; a cheating one is caught exactly where it should be."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

import numpy as np
import pytest

from reference import protocol
from reference.check import Method
from reference.field import Field
from reference.linear import Integers, Tensors
from reference.network import run
from reference.protocol import (
    Checks,
    Device,
    Plan,
    honest_device,
    run_blinded,
    run_device,
    run_enclave,
    run_private,
    run_verified,
)
from slalom.errors import ApiMisuse, IntegrityError, WireError
from slalom.plan.steps import Graph, Linear
from tests.graphs import ALL_GRAPHS, every_step_graph, images, residual_graph

Make = Callable[[], tuple[Graph, Tensors]]
Outputs = list[np.ndarray[Any, Any]]


def checks_of(method: Method, rounds: int = 1, seed: int = 1) -> Checks:
    return Checks(method, rounds, Field(Random(seed)))


def same(one: Outputs, other: Outputs) -> bool:
    return len(one) == len(other) and all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("make", ALL_GRAPHS)
def test_all_levels_give_the_same_bits(make: Make) -> None:
    graph, tensors = make()
    plan, x, device = Plan(graph, tensors), images(graph, 2, seed=21), honest_device(tensors)
    wanted = run_enclave(plan, x)
    assert same(run_device(plan, x, device), wanted)
    assert same(run_blinded(plan, x, device, Field(Random(2))), wanted)
    for method in Method:
        for rounds in (1, 2):
            assert same(run_verified(plan, x, device, checks_of(method, rounds)), wanted)
            assert same(run_private(plan, x, device, checks_of(method, rounds)), wanted)


def cheating_at(name: str, tensors: Tensors) -> Device:
    """Honest but for the last item of one step: its elements are moved far up and far down in turns."""
    honest = honest_device(tensors)

    def device(step: Linear, x: Integers) -> Integers:
        y = honest(step, x)
        if step.name == name:
            y[-1].flat[0::2] += 10**8
            y[-1].flat[1::2] -= 10**8
        return y

    return device


def linear_names(graph: Graph) -> list[str]:
    return [step.name for step in graph.steps if isinstance(step, Linear)]


@pytest.mark.parametrize("name", linear_names(every_step_graph()[0]))
def test_a_cheat_at_any_step_is_caught_there(name: str) -> None:
    graph, tensors = every_step_graph()
    plan, x, device = Plan(graph, tensors), images(graph, 2, seed=22), cheating_at(name, tensors)
    for method in Method:
        for level in (run_verified, run_private):
            with pytest.raises(IntegrityError) as caught:
                level(plan, x, device, checks_of(method))
            assert caught.value.step == name


@pytest.mark.parametrize("name", linear_names(every_step_graph()[0]))
def test_without_a_check_the_same_cheat_changes_the_outputs(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    graph, tensors = every_step_graph()
    plan, x, device = Plan(graph, tensors), images(graph, 2, seed=22), cheating_at(name, tensors)
    wanted = run_enclave(plan, x)
    assert not same(run_device(plan, x, device), wanted)
    assert not same(run_blinded(plan, x, device, Field(Random(3))), wanted)
    monkeypatch.setattr(protocol, "prepare_check", lambda plan, checks: lambda step, x, claim: claim)
    for level in (run_verified, run_private):
        assert not same(level(plan, x, device, checks_of(Method.PREPROCESSED)), wanted)


def test_a_wrong_mask_image_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    graph, tensors = residual_graph()
    plan, x, right = Plan(graph, tensors), images(graph, 1, seed=23), protocol.mask_image
    monkeypatch.setattr(protocol, "mask_image", lambda layer, mask: right(layer, mask) + (np.arange(1) + 1))
    with pytest.raises(IntegrityError):
        run_private(plan, x, honest_device(tensors), checks_of(Method.PREPROCESSED))


@pytest.mark.parametrize("seed", [1, 2])
def test_the_device_sees_words_that_do_not_depend_on_the_input(seed: int) -> None:
    """With the masks' randomness held, the words move by exactly x: they are x + r, and r never shows twice."""
    graph, tensors = residual_graph()
    plan = Plan(graph, tensors)
    x = images(graph, 2, seed=24)
    seen: list[list[Integers]] = []
    for field_seed in (seed, seed, seed + 10):
        words: list[Integers] = []
        honest = honest_device(tensors)

        def device(step: Linear, sent: Integers, words: list[Integers] = words, honest: Device = honest) -> Integers:
            words.append(sent.copy())
            return honest(step, sent)

        run_blinded(plan, x, device, Field(Random(field_seed)))
        seen.append(words)
    assert all(np.array_equal(a, b) for a, b in zip(seen[0], seen[1], strict=True))
    for sent, other in zip(seen[0], seen[2], strict=True):
        assert (sent != other).mean() > 0.99
        assert (np.abs(sent) > 2**20).mean() > 0.99  # activations stay below 2**14
    everything = np.concatenate([sent.ravel() for sent in seen[0]])
    assert len(np.unique(everything)) > 0.999 * everything.size
    assert np.array_equal(run(graph, tensors, x)[0], run_enclave(plan, x)[0])


@pytest.mark.parametrize("level", [run_verified, run_private])
def test_answers_of_another_shape_are_refused(level: Callable[..., Outputs]) -> None:
    graph, tensors = residual_graph()
    plan, x, honest = Plan(graph, tensors), images(graph, 2, seed=25), honest_device(tensors)
    for cut in (lambda y: y[:1], lambda y: y[..., :1], lambda y: y.reshape(-1)):
        with pytest.raises(WireError):
            level(plan, x, lambda step, x, cut=cut: cut(honest(step, x)), checks_of(Method.DIRECT))


def test_zero_rounds_cannot_be_expressed() -> None:
    for method in Method:
        with pytest.raises(ApiMisuse):
            checks_of(method, rounds=0)
