"""Pooling: kernels against the reference, and the reference against loops."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slalom.arithmetic.dispatch import Isa, make_dispatch
from slalom.arithmetic.pooling import pool
from slalom.errors import ApiMisuse
from slalom.plan.steps import Accumulator, Activation, Pool, Reduction, Window
from tests.arithmetic.geometries import draw_words
from tests.isas import FUSED_ISAS

REFERENCE = make_dispatch(Isa.NUMPY, 1)
ISAS = [isa for isa in FUSED_ISAS if isa is not Isa.NUMPY]


def make_pool(reduction: Reduction, rows: list[Window], columns: list[Window], channels: int) -> Pool:
    shape = (len(rows), len(columns), channels)
    output = Activation(shape, 1.0, 15) if reduction is Reduction.MAXIMUM else Accumulator(shape, 2**31 - 1)
    return Pool("pool", "x", reduction, tuple(rows), tuple(columns), output)


def sliding(extent: int, kernel: int, stride: int, padding: int, dilation: int = 1) -> list[Window]:
    """The windows of a pooling layer whose padding holds nothing."""
    windows = []
    for start in range(-padding, extent + padding - dilation * (kernel - 1), stride):
        inside = [i for i in range(start, start + dilation * kernel, dilation) if 0 <= i < extent]
        if inside:
            windows.append(Window(inside[0], inside[-1] + 1, dilation))
    return windows


@st.composite
def windows(draw: st.DrawFn, extent: int) -> list[Window]:
    starts = draw(st.lists(st.integers(0, extent - 1), min_size=1, max_size=6))
    return [Window(s, draw(st.integers(s + 1, extent)), draw(st.integers(1, 3))) for s in starts]


@st.composite
def pools(draw: st.DrawFn) -> tuple[Pool, tuple[int, int, int]]:
    height, width, channels = draw(st.integers(1, 9)), draw(st.integers(1, 9)), draw(st.sampled_from([1, 3, 17, 33]))
    reduction = draw(st.sampled_from(Reduction))
    return make_pool(reduction, draw(windows(height)), draw(windows(width)), channels), (height, width, channels)


def loop_pool(step: Pool, x: np.ndarray) -> np.ndarray:
    """One window at a time, in Python integers."""
    join = max if step.reduction is Reduction.MAXIMUM else sum
    y = np.zeros((len(x), len(step.rows), len(step.columns), x.shape[3]), object)
    for n, i, j, c in np.ndindex(y.shape):
        rows, columns = step.rows[i], step.columns[j]
        y[n, i, j, c] = join(
            int(x[n, r, k, c])
            for r in range(rows.start, rows.stop, rows.step)
            for k in range(columns.start, columns.stop, columns.step)
        )
    return y.astype(np.int16 if step.reduction is Reduction.MAXIMUM else np.int32)


@settings(deadline=None, max_examples=30)
@given(drawn=pools(), seed=st.integers(0, 2**32 - 1))
def test_reference_and_kernels_equal_the_loop(drawn: tuple[Pool, tuple[int, int, int]], seed: int) -> None:
    step, shape = drawn
    x = draw_words(np.random.default_rng(seed), (2, *shape), np.int16)
    expected = loop_pool(step, x)
    for isa in FUSED_ISAS:
        y = pool(make_dispatch(isa, 1), step, x)
        assert y.dtype == expected.dtype
        np.testing.assert_array_equal(y, expected)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("reduction", Reduction)
def test_layers(isa: Isa, threads: int, reduction: Reduction) -> None:
    dispatch = make_dispatch(isa, threads)
    rng = np.random.default_rng(30)
    x = draw_words(rng, (3, 19, 23, 40), np.int16)
    for kernel, stride, padding, dilation in ((2, 2, 0, 1), (3, 2, 1, 1), (3, 1, 1, 2), (5, 3, 2, 1)):
        rows, columns = sliding(19, kernel, stride, padding, dilation), sliding(23, kernel, stride, padding, dilation)
        step = make_pool(reduction, rows, columns, 40)
        np.testing.assert_array_equal(pool(dispatch, step, x), pool(REFERENCE, step, x))
    everything = make_pool(reduction, [Window(0, 19)], [Window(0, 23)], 40)
    np.testing.assert_array_equal(pool(dispatch, everything, x), pool(REFERENCE, everything, x))
    np.testing.assert_array_equal(pool(dispatch, everything, x[::2]), pool(REFERENCE, everything, x[::2]))
    dispatch.close()


@pytest.mark.parametrize("isa", FUSED_ISAS)
def test_extremes(isa: Isa) -> None:
    dispatch = make_dispatch(isa, 1)
    lowest = np.full((1, 4, 4, 5), -(2**15), np.int16)
    rows = [Window(0, 4)]
    assert (pool(dispatch, make_pool(Reduction.MAXIMUM, rows, rows, 5), lowest) == -(2**15)).all()
    assert (pool(dispatch, make_pool(Reduction.SUM, rows, rows, 5), lowest) == -(2**19)).all()


@pytest.mark.parametrize("isa", FUSED_ISAS)
def test_misuse_is_refused(isa: Isa) -> None:
    dispatch = make_dispatch(isa, 1)
    inside = [Window(0, 2)]
    image = np.zeros((1, 2, 2, 3), np.int16)
    for window in (Window(0, 3), Window(-1, 2), Window(1, 1), Window(0, 2, 0)):
        with pytest.raises(ApiMisuse, match="outside"):
            pool(dispatch, make_pool(Reduction.MAXIMUM, [window], inside, 3), image)
        with pytest.raises(ApiMisuse, match="outside"):
            pool(dispatch, make_pool(Reduction.SUM, inside, [window], 3), image)
    with pytest.raises(ApiMisuse, match="int16 images"):
        pool(dispatch, make_pool(Reduction.SUM, inside, inside, 3), image.astype(np.int32))  # type: ignore[arg-type]
