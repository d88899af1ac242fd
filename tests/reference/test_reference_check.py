"""Every check accepts what is right, catches one flipped element anywhere, and cannot be asked to check nothing."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

import numpy as np
import pytest

from reference import check as checks
from reference.check import (
    Layer,
    Method,
    check_batched,
    check_direct,
    check_preprocessed,
    draw_probes,
    draw_rank_one_probe,
)
from reference.field import Field, P
from reference.linear import Integers, apply_step, transpose_step
from reference.network import run_activations, value_types
from slalom.errors import ApiMisuse, IntegrityError
from slalom.plan.steps import Linear
from tests.graphs import ALL_GRAPHS, every_step_graph, images

Verify = Callable[[Integers, Integers], Integers]


def layers_and_inputs(make: Callable[[], Any], batch: int) -> list[tuple[Layer, Integers]]:
    graph, tensors = make()
    values = run_activations(graph, tensors, images(graph, batch, seed=11))
    types = value_types(graph)
    steps = [step for step in graph.steps if isinstance(step, Linear)]
    return [(Layer(step, tensors, types[step.source].shape), values[step.source]) for step in steps]


def verifier(method: Method, layer: Layer, rounds: int, field: Field) -> Verify:
    if method is Method.PREPROCESSED:
        probes = draw_probes(layer, rounds, field)
        return lambda x, y: check_preprocessed(layer, x, y, probes, field)
    check = check_direct if method is Method.DIRECT else check_batched
    return lambda x, y: check(layer, x, y, rounds, field)


@pytest.mark.parametrize("rounds", [1, 2])
@pytest.mark.parametrize("method", list(Method))
@pytest.mark.parametrize("make", ALL_GRAPHS)
def test_right_claims_are_returned(make: Callable[[], Any], method: Method, rounds: int) -> None:
    field = Field(Random(1))
    for layer, x in layers_and_inputs(make, batch=2):
        y = apply_step(layer.step, layer.tensors, x)
        assert verifier(method, layer, rounds, field)(x, y) is y


@pytest.mark.parametrize("method", list(Method))
def test_one_flipped_bit_is_caught_at_every_step(method: Method) -> None:
    random = Random(2)
    for layer, x in layers_and_inputs(every_step_graph, batch=2):
        y = apply_step(layer.step, layer.tensors, x)
        verify = verifier(method, layer, 1, Field(random))
        for bit in (0, 30):
            wrong = y.copy()
            wrong.reshape(-1)[random.randrange(y.size)] ^= 1 << bit
            with pytest.raises(IntegrityError) as caught:
                verify(x, wrong)
            assert caught.value.step == layer.step.name


@pytest.mark.parametrize("method", list(Method))
def test_every_single_element_is_checked(method: Method) -> None:
    layer, x = layers_and_inputs(every_step_graph, batch=2)[1]  # the chain of grouped, dilated convolutions
    y = apply_step(layer.step, layer.tensors, x)
    verify = verifier(method, layer, 1, Field(Random(3)))
    places = range(0, y.size, 1 if method is Method.PREPROCESSED else 37)
    for place in places:
        wrong = y.copy()
        wrong.reshape(-1)[place] += 1
        with pytest.raises(IntegrityError):
            verify(x, wrong)


@pytest.mark.parametrize("method", list(Method))
def test_valid_answers_to_other_inputs_are_caught(method: Method) -> None:
    layer, x = layers_and_inputs(every_step_graph, batch=2)[0]
    y = apply_step(layer.step, layer.tensors, x)
    with pytest.raises(IntegrityError):
        verifier(method, layer, 1, Field(Random(4)))(x, y[::-1])


@pytest.mark.parametrize("method", list(Method))
def test_without_its_comparison_a_wrong_claim_passes(method: Method, monkeypatch: pytest.MonkeyPatch) -> None:
    layer, x = layers_and_inputs(every_step_graph, batch=2)[0]
    wrong = apply_step(layer.step, layer.tensors, x) + 1
    monkeypatch.setattr(checks, "check_item", lambda *_: None)
    assert verifier(method, layer, 1, Field(Random(5)))(x, wrong) is wrong


@pytest.mark.parametrize("rounds", [0, -1])
def test_zero_rounds_cannot_be_expressed(rounds: int) -> None:
    layer, x = layers_and_inputs(every_step_graph, batch=1)[0]
    y, field = apply_step(layer.step, layer.tensors, x), Field(Random(6))
    with pytest.raises(ApiMisuse):
        draw_probes(layer, rounds, field)
    with pytest.raises(ApiMisuse):
        check_preprocessed(layer, x, y, (), field)
    with pytest.raises(ApiMisuse):
        check_direct(layer, x, y, rounds, field)
    with pytest.raises(ApiMisuse):
        check_batched(layer, x, y, rounds, field)


@pytest.mark.parametrize("method", list(Method))
def test_what_is_no_accumulator_is_refused(method: Method) -> None:
    layer, x = layers_and_inputs(every_step_graph, batch=2)[0]
    y = apply_step(layer.step, layer.tensors, x)
    verify = verifier(method, layer, 1, Field(Random(7)))
    shifted = y.astype(object)
    shifted[0, 0, 0, 0] += P  # congruent to the right answer, yet wrong
    for wrong in (y[:1], y[:, :1], y[..., :0], shifted):
        with pytest.raises(IntegrityError):
            verify(x, wrong)


def test_probes_are_fresh_and_cover_the_field() -> None:
    layer, _ = layers_and_inputs(every_step_graph, batch=1)[0]
    first, second = draw_probes(layer, 2, Field(Random(8)))
    assert (first.s != second.s).all()
    assert all(0 <= value < P for probe in (first, second) for value in (*probe.s.ravel(), *probe.image.ravel()))
    assert max(first.s.ravel()) > P // 2


def test_probe_image_from_pieces_is_the_transpose() -> None:
    for layer, _ in layers_and_inputs(every_step_graph, batch=1):
        for probe in (draw_probes(layer, 1, Field(Random(9)))[0], draw_rank_one_probe(layer, Field(Random(9)))):
            plain = transpose_step(layer.step, layer.tensors, probe.s[np.newaxis], layer.input_shape)[0]
            assert (plain.astype(object) % P == probe.image).all()


def test_a_composite_modulus_is_refused() -> None:
    for composite in (0, 1, 4, 9, 2**51 - 1, 2**32):
        with pytest.raises(ApiMisuse):
            Field(Random(), composite)
    for prime in (2, 3, 5, 7, 11, 101, 251, P):
        Field(Random(), prime)


def test_dot_takes_integers_of_any_size_and_sign() -> None:
    field = Field(Random(), 101)
    a, b = np.array([-1, 2**31, 5]), np.array([2**80, 3, -7], dtype=object)
    assert field.dot(a, b) == (-(2**80) + 3 * 2**31 - 35) % 101
