"""The field against Python integers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from slalom.arithmetic import field
from slalom.arithmetic.dispatch import make_dispatch
from slalom.arithmetic.field import P
from slalom.arithmetic.fused import field_multiply
from tests.isas import FUSED_ISAS

EDGES = [0, 1, 2, 128, 129, 130, 2**25, 2**26 - 1, 2**26, 2**50, P // 2, P - 130, P - 2, P - 1]
elements = st.one_of(st.sampled_from(EDGES), st.integers(0, P - 1))
words = st.one_of(st.sampled_from([-(2**31), -(2**31) + 1, -1, 0, 1, 2**31 - 1]), st.integers(-(2**31), 2**31 - 1))


def row(values: list[int]) -> np.ndarray:
    return np.array(values, np.uint64)


def test_p_passes_fermat() -> None:
    assert P == 2**51 - 129
    assert all(pow(base, P - 1, P) == 1 for base in (2, 3, 5, 7, 11, 13))


@given(st.lists(st.tuples(elements, elements), min_size=1, max_size=40))
def test_arithmetic_equals_python_integers(pairs: list[tuple[int, int]]) -> None:
    a, b = row([x for x, _ in pairs]), row([y for _, y in pairs])
    assert field.multiply(a, b).tolist() == [x * y % P for x, y in pairs]
    assert field.add(a, b).tolist() == [(x + y) % P for x, y in pairs]
    assert field.subtract(a, b).tolist() == [(x - y) % P for x, y in pairs]
    assert int(field.sum(a)) == sum(x for x, _ in pairs) % P


@pytest.mark.parametrize("isa", FUSED_ISAS)
def test_products_of_the_edges_in_every_instruction_set(isa: str) -> None:
    dispatch = make_dispatch(isa, 1)
    a, b = row([x for x in EDGES for _ in EDGES]), row([y for _ in EDGES for y in EDGES])
    assert field_multiply(dispatch, a, b).tolist() == [x * y % P for x in EDGES for y in EDGES]
    random = np.random.default_rng(1).integers(0, P, (2, 999), dtype=np.uint64)
    assert np.array_equal(field_multiply(dispatch, random[0], random[1]), field.multiply(random[0], random[1]))


@given(st.lists(st.tuples(words, elements), min_size=1, max_size=60))
def test_dot_equals_python_integers(terms: list[tuple[int, int]]) -> None:
    values = np.array([[y for y, _ in terms]], np.int32)
    assert field.dot(values, row([s for _, s in terms])).tolist() == [sum(y * s for y, s in terms) % P]


@pytest.mark.parametrize("value", [-(2**31), 2**31 - 1])
@pytest.mark.parametrize("probe", [P - 1, 0, 2**51 - 2**17 - 1])
def test_long_extreme_dots(value: int, probe: int) -> None:
    count = 2**15 + 3  # more than two chunks of 2**14 terms
    values = np.full((2, count), value, np.int32)
    assert field.dot(values, np.full(count, probe, np.uint64)).tolist() == [value * probe * count % P] * 2


def test_sum_of_many_extreme_elements() -> None:
    count = 100_003
    assert int(field.sum(np.full(count, P - 1, np.uint64))) == (P - 1) * count % P


@pytest.mark.parametrize("dtype", [np.int16, np.int32, np.int64, np.uint64, object])
def test_reduce_takes_every_integer_type(dtype: type) -> None:
    values = [0, 1, 2**15 - 1] + ([] if dtype is np.uint64 else [-1, -(2**15)])
    values += [2**63 - 1, P, P - 1] if dtype in (np.int64, np.uint64, object) else []
    values += [2**200 + 7, -(2**200)] if dtype is object else []
    reduced = field.reduce(np.array(values, dtype))
    assert reduced.dtype == np.uint64
    assert reduced.tolist() == [value % P for value in values]
