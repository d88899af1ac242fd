"""How rows stand beside limits and each other, on figures that can be checked in the head."""

from __future__ import annotations

import dataclasses
import os

import pytest

from slalom.bench.cores import kept_to_cores, usable_cores
from slalom.bench.limits import measure_memory
from tests.comparisons import comparison

FOUND = comparison()
ROWS = {(row.name, row.cores): row for row in FOUND.rows}


def test_a_level_beside_the_limits_and_the_strongest_engine_inside() -> None:
    standing = FOUND.standing(ROWS["private", 4])
    assert standing.link_limit == 20000.0  # 2 MB down at 40 GB/s, less than 1 MB up at 50
    assert standing.link_share == 320.0 / 20000.0
    assert standing.memory_limit == 10000.0  # 6 MB at 60 GB/s
    assert standing.memory_share == 320.0 / 10000.0
    assert standing.over_in_tee == 2.0  # openvino int8, not the enclave nor torch
    assert standing.over_torch == 8.0


def test_both_ways_at_once_may_be_the_limit() -> None:
    busy = dataclasses.replace(FOUND, limits=dataclasses.replace(FOUND.limits, both_ways=3e10))
    assert busy.standing(ROWS["private", 4]).link_limit == 10000.0  # 3 MB at 30 GB/s


def test_what_has_no_meaning_is_none() -> None:
    gpu = FOUND.standing(ROWS["torch fp16, GPU", 0])
    assert set(dataclasses.astuple(gpu)) == {None}
    engine = FOUND.standing(ROWS["openvino int8", 1])
    assert engine.link_limit is None and engine.memory_limit is None and engine.over_in_tee == 1.0


@pytest.mark.parametrize("threads", [1, 2])
def test_memory_is_measured(threads: int) -> None:
    assert 1e6 < measure_memory(threads, 2**16) < 1e13


def test_the_process_is_kept_to_cores_and_let_go() -> None:
    before = os.sched_getaffinity(0)
    with kept_to_cores(1):
        assert os.sched_getaffinity(0) == {min(before)}
    assert os.sched_getaffinity(0) == before and usable_cores() == len(before)
