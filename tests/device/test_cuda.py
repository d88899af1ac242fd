"""The CUDA device: the port, whole sessions equal to the reference at every level, and its own lower-level face."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import slalom
from reference.linear import apply_step
from reference.network import enter, run_activations
from slalom.arithmetic.linear import apply_maps
from slalom.errors import ApiMisuse, DeviceError
from slalom.link.port import DevicePort
from slalom.plan import Plan
from slalom.plan.steps import Linear
from tests.accelerator import CUDA
from tests.arithmetic.geometries import draw_words
from tests.devices import GRAPH_NAMES, case_of, plan_of, same
from tests.graphs import ALL_GRAPHS, images

from slalom.device import pinned  # isort: skip
from slalom.device.cuda import CudaDevice  # isort: skip

gpu = pytest.mark.gpu


@pytest.fixture(scope="module")
def device() -> CudaDevice:
    return CudaDevice()


def load(device: CudaDevice, build) -> Plan:
    plan = Plan(*build())
    device.load(plan)
    return plan


def linear_steps(plan: Plan) -> list[Linear]:
    return [step for step in plan.graph.steps if isinstance(step, Linear)]


def activation_of(plan: Plan, batch: int, seed: int) -> np.ndarray:
    return np.ascontiguousarray(enter(plan.graph, images(plan.graph, batch, seed)))


@pytest.mark.skipif(CUDA, reason="there is a CUDA device")
def test_it_is_refused_where_there_is_none() -> None:
    with pytest.raises(DeviceError, match="no CUDA device"):
        CudaDevice()


@gpu
@pytest.mark.parametrize("name", GRAPH_NAMES)
@pytest.mark.parametrize("protection", ["device", "verified", "blinded", "private"])
def test_a_session_gives_the_reference_bits(name: str, protection: str) -> None:
    x, expected = case_of(name, 3)
    with slalom.Session(plan_of(name), protection=protection, device=CudaDevice()) as session:
        for _ in range(2):
            assert same(session.run(x), expected)


@gpu
@pytest.mark.parametrize("name", GRAPH_NAMES)
def test_a_layerwise_session_gives_the_reference_bits(name: str) -> None:
    x, expected = case_of(name, 3)
    options = {"protection": "verified", "schedule": "layerwise", "check": "batched"}
    with slalom.Session(plan_of(name), device=CudaDevice(), **options) as session:
        assert same(session.run(x), expected)


@gpu
@pytest.mark.parametrize("build", ALL_GRAPHS)
@pytest.mark.parametrize("batch", [1, 3])
def test_claims_ahead_equal_the_reference(device: CudaDevice, build, batch: int) -> None:
    port: DevicePort = device
    plan = load(device, build)
    user = images(plan.graph, batch, seed=2)
    values = run_activations(plan.graph, plan.tensors, user)
    claims = list(port.run_ahead(enter(plan.graph, user)))
    assert [claim.step for claim in claims] == [step.name for step in linear_steps(plan)]
    for claim in claims:
        assert type(claim.words) is np.ndarray and claim.words.dtype == np.int32 and claim.words.flags.c_contiguous
        np.testing.assert_array_equal(claim.words, values[claim.step])


@gpu
@pytest.mark.parametrize("build", ALL_GRAPHS)
@pytest.mark.parametrize("dtype", [np.int16, np.int32])
def test_claims_on_any_words_equal_the_reference(device: CudaDevice, build, dtype) -> None:
    plan = load(device, build)
    rng = np.random.default_rng(4)
    for step in linear_steps(plan):
        words = draw_words(rng, (2, *plan.types[step.source].shape), dtype)
        words.flags.writeable = False
        (claim,) = device.compute([step.name], words)
        np.testing.assert_array_equal(claim, apply_maps(step.maps, plan.tensors, words))
        np.testing.assert_array_equal(claim.astype(np.int64) % 2**32, apply_step(step, plan.tensors, words) % 2**32)


@gpu
def test_many_in_flight_into_registered_shared_memory(device: CudaDevice) -> None:
    plan = load(device, ALL_GRAPHS[2])
    step = linear_steps(plan)[1]
    shape, output = plan.types[step.source].shape, step.output.shape
    region = np.zeros(2**22, np.uint8)
    pinned.register_host(region)
    try:
        size = 4 * 5 * int(np.prod(shape) + np.prod(output))
        slots = [region[start : start + size].view(np.int32) for start in range(0, 20 * size, size)]
        words = [slot[: 5 * int(np.prod(shape))].reshape(5, *shape) for slot in slots]
        outs = [slot[5 * int(np.prod(shape)) :].reshape(5, *output) for slot in slots]
        assert torch.from_numpy(outs[3]).is_pinned()
        rng = np.random.default_rng(6)
        for given in words:
            given[:] = draw_words(rng, given.shape, np.int32)
        events = [device.submit_compute([step.name], *pair)[0] for pair in zip(words, [[o] for o in outs], strict=True)]
        for event, given, claim in zip(events, words, outs, strict=True):
            event.synchronize()
            np.testing.assert_array_equal(claim, apply_maps(step.maps, plan.tensors, given))
    finally:
        pinned.unregister_host(region)


@gpu
@pytest.mark.parametrize("build", ALL_GRAPHS)
def test_claims_ahead_into_the_callers_memory_packed_where_they_fit(device: CudaDevice, build) -> None:
    plan = load(device, build)
    user = images(plan.graph, 3, seed=7)
    values = run_activations(plan.graph, plan.tensors, user)
    outs = []
    for step in linear_steps(plan):
        count = 3 * int(np.prod(step.output.shape))
        packs = device.packs(step.name)
        outs.append(pinned.pinned_array((3 * count,), np.uint8) if packs else pinned.pinned_array((count,), np.int32))
    events = device.submit_ahead(activation_of(plan, 3, 7), outs)
    for step, event, out in zip(linear_steps(plan), events, outs, strict=True):
        event.synchronize()
        expected = np.ascontiguousarray(values[step.name].astype(np.int32)).reshape(-1)
        if out.dtype == np.uint8:
            expected = expected.view(np.uint8).reshape(-1, 4)[:, :3].reshape(-1)
        np.testing.assert_array_equal(out, expected)


@gpu
def test_misuse_is_refused(device: CudaDevice) -> None:
    with pytest.raises(ApiMisuse, match="no plan"):
        CudaDevice().run(np.zeros((1, 2), np.int16))
    plan = load(device, ALL_GRAPHS[1])
    item = plan.graph.input.output.shape
    name = linear_steps(plan)[0].name
    words = np.zeros((1, *item), np.int32)
    with pytest.raises(ApiMisuse, match="no linear step"):
        device.compute(["image"], words)
    with pytest.raises(ApiMisuse, match="takes int16"):
        device.run_ahead(words)  # type: ignore[arg-type]
    with pytest.raises(ApiMisuse, match="takes int16"):
        device.run(np.zeros((1, 3), np.int16))
    with pytest.raises(ApiMisuse, match="takes items"):
        device.compute([name], np.zeros((1, 3, 3, 3), np.int32))
    with pytest.raises(ApiMisuse, match="do not fit"):
        device.submit_compute([name], words, [np.zeros(3, np.int32)])
    assert len(device.compute([], words)) == 0
