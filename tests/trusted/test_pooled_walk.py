"""A network whose maximum pools are taken as the pass goes: the reference's outputs, and every lie still found."""

from __future__ import annotations

from functools import cache

import pytest

import reference.network
from slalom import attacks
from slalom.arithmetic import fused
from slalom.errors import IntegrityError
from slalom.plan import Plan
from slalom.plan.flow import trace_flow
from slalom.plan.steps import Add, Apply, Function, Layout, Output, Reduction, Reshape, Window
from slalom.session import Session
from tests import graphs
from tests.devices import NumpyDevice, same
from tests.graph_builder import Builder
from tests.isas import FUSED_ISAS

PAIRS = tuple(Window(2 * k, 2 * k + 2) for k in range(4))


@cache
def pooled_plan() -> Plan:
    """Six pools: `first` and `sixth` may be taken as a pass goes; the others are read twice, overlap, sum or end."""
    b = Builder("pooled", (8, 8, 3), Layout.CHANNELS_FIRST, seed=7, bits=12)
    b.linear("conv1", "image", b.convolution("conv1", (3, 3), 3, 5, padding=(1, 1, 1, 1)))
    b.pointwise("relu1", "conv1", Apply(Function.RELU))
    b.pool("first", "relu1", Reduction.MAXIMUM, PAIRS, PAIRS)
    b.linear("conv2", "first", b.convolution("conv2", (3, 3), 5, 6, padding=(1, 1, 1, 1)))
    b.pointwise("relu2", "conv2", Apply(Function.RELU))
    b.pool("second", "relu2", Reduction.MAXIMUM, PAIRS[:2], PAIRS[:2])
    b.pool("third", "relu2", Reduction.MAXIMUM, PAIRS[:2], PAIRS[:2])
    b.linear("conv3", "second", b.convolution("conv3", (1, 1), 6, 6))
    b.pointwise("relu3", "conv3", Add("third"))
    b.linear("conv4", "relu2", b.convolution("conv4", (1, 1), 6, 4))
    b.pointwise("relu4", "conv4", Apply(Function.RELU))
    b.pool("fourth", "relu4", Reduction.MAXIMUM, (Window(0, 3), Window(2, 4)), (Window(0, 4),))
    b.linear("conv5", "relu3", b.convolution("conv5", (1, 1), 6, 6))
    b.pointwise("relu5", "conv5", Apply(Function.RELU))
    b.pool("sixth", "relu5", Reduction.MAXIMUM, (Window(0, 2),), (Window(0, 1), Window(0, 2)))
    b.add(Reshape("flat", "sixth", b.like("sixth", (12,))))
    b.linear("fc", "flat", b.dense("fc", 12, 5))
    b.pointwise("logits", "fc", real=True)
    b.add(Reshape("side", "fourth", b.like("fourth", (8,))))
    b.linear("fc2", "side", b.dense("fc2", 8, 3))
    b.pointwise("more", "fc2", real=True)
    return Plan(*b.graph(Output("logits", Layout.PLAIN), Output("more", Layout.PLAIN)))


@pytest.fixture(autouse=True)
def pooled_as_it_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fused, "_POOLED_ELEMENTS", 0)


def test_which_pools_are_taken() -> None:
    found = trace_flow(pooled_plan().graph).pooled
    assert {source: step.name for source, step in found.items()} == {"relu1": "first", "relu5": "sixth"}


@pytest.mark.parametrize("isa", FUSED_ISAS)
@pytest.mark.parametrize("level", ["enclave", "verified", "blinded", "private"])
@pytest.mark.parametrize("check", ["preprocessed", "direct"])
def test_equal_to_the_reference(isa: str, level: str, check: str) -> None:
    plan = pooled_plan()
    images = graphs.images(plan.graph, 5, 0)
    expected = tuple(reference.network.run(plan.graph, dict(plan.tensors), images))
    with Session(plan, protection=level, check=check, device=NumpyDevice(), isa=isa, threads=2) as session:
        for _ in range(2):
            assert same(session.run(images), expected)


@pytest.mark.parametrize("step", ["conv1", "conv2", "conv5"])
@pytest.mark.parametrize("level", ["verified", "private"])
@pytest.mark.parametrize("seed", range(4))
def test_a_lie_in_what_is_pooled_is_found(level: str, step: str, seed: int) -> None:
    """One bit of one element, whether a maximum shows it or not."""
    plan = pooled_plan()
    images = graphs.images(plan.graph, 3, 0)
    session = Session(plan, protection=level, device=attacks.make("flip_element", seed, step))
    with session, pytest.raises(IntegrityError, match=step):
        session.run(images)
