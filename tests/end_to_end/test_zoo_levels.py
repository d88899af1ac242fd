"""Every zoo network, compiled at a small size with random weights, gives the same bits at every level and check."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import slalom
from slalom.bench.evaluate import noise_images
from slalom.plan import Plan
from slalom.zoo.catalogue import load_module, names

SMALL = {"inception_v3": 75}
DEEP = {"vgg_19", "resnet_34", "resnet_101", "resnet_152"}  # the same steps as their smaller kin, many more of them
COMBINATIONS = [
    ("device", "preprocessed", "ahead"),
    ("enclave", "preprocessed", "ahead"),
    ("verified", "preprocessed", "ahead"),
    ("verified", "direct", "layerwise"),
    ("verified", "batched", "ahead"),
    ("blinded", "preprocessed", "ahead"),
    ("private", "preprocessed", "ahead"),
    ("private", "direct", "ahead"),
    ("private", "batched", "ahead"),
]


def compile_small(name: str) -> Plan:
    size = SMALL.get(name, 32)
    images = torch.from_numpy(noise_images((3, size, size), 4, seed=1))
    return slalom.compile(load_module(name).module, (images,), [images], name=name)


LEVELS = {"device", "enclave", "blinded"}  # one check, or none
CHECKS = ("preprocessed", "direct", "batched")


def cases() -> list[object]:
    """Every network at every level, its checks in turns; and, slow, with all checks, and the deep ones."""
    found: list[object] = []
    for index, name in enumerate(names()):
        turn = CHECKS[index % len(CHECKS)]
        few = [combination for combination in COMBINATIONS if combination[0] in LEVELS or combination[1] == turn]
        marks = [pytest.mark.slow] if name in DEEP else []
        found.append(pytest.param(name, few, marks=marks, id=f"{name}-{turn}"))
        found.append(pytest.param(name, COMBINATIONS, marks=pytest.mark.slow, id=f"{name}-all"))
    return found


@pytest.mark.parametrize(("name", "combinations"), cases())
def test_outputs_are_equal_at_every_level_and_check(name: str, combinations: list[tuple[str, str, str]]) -> None:
    plan = compile_small(name)
    size = SMALL.get(name, 32)
    images = noise_images((3, size, size), 2, seed=2)
    outputs = {}
    for protection, check, schedule in combinations:
        with slalom.Session(plan, protection=protection, check=check, schedule=schedule) as session:
            outputs[protection, check] = session.run(images)
    first = outputs["enclave", "preprocessed"]
    assert isinstance(first, np.ndarray)
    assert np.isfinite(first).all()
    assert len(np.unique(first)) > 10  # a dead network would pass anything
    for combination, output in outputs.items():
        assert np.array_equal(output, first), combination
