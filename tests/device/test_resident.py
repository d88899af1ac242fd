"""A plan on kernels equals the reference bit for bit: every step of every hand-built graph, plain and blinded."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from reference.network import enter, leave, run, run_activations, value_types
from slalom.arithmetic.linear import apply_maps
from slalom.plan import Plan
from slalom.plan.steps import Linear
from tests.accelerator import DEVICE, pytestmark  # noqa: F401
from tests.arithmetic.geometries import draw_words
from tests.graphs import ALL_GRAPHS, images

from slalom.device.resident import ResidentPlan  # isort: skip


@pytest.mark.parametrize("build", ALL_GRAPHS)
@pytest.mark.parametrize("batch", [1, 3])
def test_a_whole_network(build, batch: int) -> None:
    plan = Plan(*build())
    resident = ResidentPlan(plan, DEVICE)
    user = images(plan.graph, batch, seed=2)
    expected = run_activations(plan.graph, plan.tensors, user)
    values: dict[str, torch.Tensor] = {}
    names = []
    activation = torch.from_numpy(np.ascontiguousarray(enter(plan.graph, user))).to(DEVICE)
    for name, claim in resident.walk(activation, values):
        assert claim.dtype == torch.int32 and claim.is_contiguous()
        np.testing.assert_array_equal(claim.cpu().numpy(), expected[name])
        names.append(name)
    assert names == [step.name for step in plan.graph.steps if isinstance(step, Linear)]
    assert set(values) == {output.source for output in plan.graph.outputs}
    types = value_types(plan.graph)
    for output, wanted in zip(plan.graph.outputs, run(plan.graph, plan.tensors, user), strict=True):
        given = leave(values[output.source].cpu().numpy(), types[output.source], output.layout)
        assert given.dtype == wanted.dtype and given.tobytes() == np.ascontiguousarray(wanted).tobytes()


@pytest.mark.parametrize("build", ALL_GRAPHS)
@pytest.mark.parametrize("dtype", [np.int16, np.int32])
def test_any_words(build, dtype) -> None:
    plan = Plan(*build())
    resident = ResidentPlan(plan, DEVICE)
    rng = np.random.default_rng(4)
    for step in plan.graph.steps:
        if isinstance(step, Linear):
            words = draw_words(rng, (2, *plan.types[step.source].shape), dtype)
            claim = resident.linear(step.name, torch.from_numpy(words).to(DEVICE), wide=True)
            np.testing.assert_array_equal(claim.cpu().numpy(), apply_maps(step.maps, plan.tensors, words))
