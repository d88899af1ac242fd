"""The local device: its claims and outputs equal the reference's walk, and its mirror is the network."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from reference.linear import apply_step
from reference.network import enter, leave, run, run_activations, value_types
from slalom.arithmetic.linear import apply_maps
from slalom.device.local import LocalDevice
from slalom.errors import ApiMisuse
from slalom.link.port import DevicePort
from slalom.plan import Plan
from slalom.plan.steps import Linear
from tests.arithmetic.geometries import draw_words
from tests.graphs import ALL_GRAPHS, images


@pytest.fixture(scope="module")
def device() -> LocalDevice:
    return LocalDevice()


def load(device: LocalDevice, build) -> Plan:
    graph, tensors = build()
    plan = Plan(graph, tensors)
    device.load(plan)
    return plan


def linear_steps(plan: Plan) -> list[Linear]:
    return [step for step in plan.graph.steps if isinstance(step, Linear)]


def test_it_is_a_port() -> None:
    port: DevicePort = LocalDevice()
    port.close()
    port.close()


@pytest.mark.parametrize("build", ALL_GRAPHS)
@pytest.mark.parametrize("batch", [1, 3])
def test_claims_ahead_equal_the_reference(device: LocalDevice, build, batch: int) -> None:
    plan = load(device, build)
    user = images(plan.graph, batch, seed=2)
    values = run_activations(plan.graph, plan.tensors, user)
    claims = list(device.run_ahead(enter(plan.graph, user)))
    assert [claim.step for claim in claims] == [step.name for step in linear_steps(plan)]
    for claim in claims:
        assert type(claim.words) is np.ndarray and claim.words.dtype == np.int32 and claim.words.flags.c_contiguous
        np.testing.assert_array_equal(claim.words, values[claim.step])


@pytest.mark.parametrize("build", ALL_GRAPHS)
def test_outputs_equal_the_reference(device: LocalDevice, build) -> None:
    plan = load(device, build)
    user = images(plan.graph, 2, seed=3)
    types = value_types(plan.graph)
    outputs = device.run(enter(plan.graph, user))
    expected = run(plan.graph, plan.tensors, user)
    assert len(outputs) == len(expected)
    for output, words, wanted in zip(plan.graph.outputs, outputs, expected, strict=True):
        assert words.dtype == np.float32
        np.testing.assert_array_equal(leave(words, types[output.source], output.layout), wanted)


@pytest.mark.parametrize("build", ALL_GRAPHS)
@pytest.mark.parametrize("dtype", [np.int16, np.int32])
def test_claims_on_any_words_equal_the_reference(device: LocalDevice, build, dtype) -> None:
    plan = load(device, build)
    rng = np.random.default_rng(4)
    for step in linear_steps(plan):
        words = draw_words(rng, (2, *plan.types[step.source].shape), dtype)
        (claim,) = device.compute([step.name], words)
        np.testing.assert_array_equal(claim, apply_maps(step.maps, plan.tensors, words))
        np.testing.assert_array_equal(claim.astype(np.int64) % 2**32, apply_step(step, plan.tensors, words) % 2**32)


def test_claims_come_in_the_order_asked(device: LocalDevice) -> None:
    plan = load(device, ALL_GRAPHS[0])
    step = linear_steps(plan)[0]
    words = draw_words(np.random.default_rng(5), (1, *plan.types[step.source].shape), np.int32)
    assert len(device.compute([step.name, step.name], words)) == 2
    assert len(device.compute([], words)) == 0


def test_the_claims_come_while_the_device_works() -> None:
    device = LocalDevice()
    plan = load(device, ALL_GRAPHS[0])
    claims = device.run_ahead(enter(plan.graph, images(plan.graph, 1, seed=1)))
    first = next(iter(claims))
    assert first.step == linear_steps(plan)[0].name
    device.linear = None  # type: ignore[method-assign,assignment]
    with pytest.raises(TypeError):  # the second claim had not been computed yet
        next(iter(claims))


def test_threads_are_set_only_when_asked() -> None:
    before = torch.get_num_threads()
    try:
        LocalDevice().close()
        assert torch.get_num_threads() == before
        LocalDevice(threads=before + 1).close()
        assert torch.get_num_threads() == before + 1
    finally:
        torch.set_num_threads(before)


def test_misuse_is_refused(device: LocalDevice) -> None:
    with pytest.raises(ApiMisuse, match="no plan"):
        LocalDevice().run(np.zeros((1, 2), np.int16))
    plan = load(device, ALL_GRAPHS[1])
    item = plan.graph.input.output.shape
    with pytest.raises(ApiMisuse, match="no linear step"):
        device.compute(["image"], np.zeros((1, *item), np.int32))
    with pytest.raises(ApiMisuse, match="takes int16"):
        device.run_ahead(np.zeros((1, *item), np.int32))
    with pytest.raises(ApiMisuse, match="takes int16"):
        device.run(np.zeros((1, 3), np.int16))
