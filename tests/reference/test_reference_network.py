"""Whole networks: every value has its declared type and range, and the moving steps do what their docstrings say."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from reference.linear import Tensors
from reference.network import enter, leave, rearrange, run, run_activations
from slalom.errors import InputError, ModelError
from slalom.plan import steps as vocabulary
from slalom.plan.steps import (
    Accumulator,
    Activation,
    Affine,
    Apply,
    Function,
    Graph,
    Input,
    Layout,
    Linear,
    Pad,
    Permute,
    Pointwise,
    Pool,
    Reduction,
    Reshape,
    Slice,
    Window,
)
from slalom.plan.validation import check_graph
from tests.graphs import ALL_GRAPHS, every_step_graph, images

Make = Callable[[], tuple[Graph, Tensors]]


@pytest.mark.parametrize("make", ALL_GRAPHS)
def test_graphs_are_valid_plans(make: Make) -> None:
    graph, tensors = make()
    check_graph(graph, tensors)
    again = make()
    assert graph == again[0]
    assert all(np.array_equal(tensors[name], again[1][name]) for name in tensors)


def test_every_kind_of_everything_is_present() -> None:
    graph, _ = every_step_graph()
    kinds = {type(step) for step in graph.steps}
    assert kinds == set(vocabulary.Step.__args__)
    operations = [operation for step in graph.steps if isinstance(step, Pointwise) for operation in step.operations]
    assert {type(operation) for operation in operations} == set(vocabulary.Operation.__args__)
    assert {operation.function for operation in operations if isinstance(operation, Apply)} == set(Function)
    assert {type(m) for step in graph.steps if isinstance(step, Linear) for m in step.maps} == set(
        vocabulary.LinearMap.__args__
    )
    assert {step.reduction for step in graph.steps if isinstance(step, Pool)} == set(Reduction)
    assert {output.layout for output in graph.outputs} == set(Layout)


@pytest.mark.parametrize("make", ALL_GRAPHS)
def test_values_have_their_types_and_ranges(make: Make) -> None:
    graph, tensors = make()
    x = images(graph, 3, seed=8)
    values = run_activations(graph, tensors, x)
    for step in graph.steps:
        value, kind = values[step.name], step.output
        assert value.shape == (3, *kind.shape)
        if isinstance(kind, Activation):
            assert value.dtype == np.int16 and np.abs(value).max() <= kind.limit
        elif isinstance(kind, Accumulator):
            assert np.abs(value).max() <= kind.bound <= 2**31 - 1
        else:
            assert value.dtype == np.float32 and np.isfinite(value).all()
        assert np.abs(value).max() > 0
    for output, value in zip(graph.outputs, run(graph, tensors, x), strict=True):
        assert value.dtype == np.float32
        back = value.transpose(0, 2, 3, 1) if output.layout is Layout.CHANNELS_FIRST else value
        assert np.array_equal(back, values[output.source])


@pytest.mark.parametrize("make", ALL_GRAPHS)
def test_items_of_a_batch_are_independent(make: Make) -> None:
    graph, tensors = make()
    x = images(graph, 3, seed=9)
    together = run(graph, tensors, x)
    for index in range(3):
        alone = run(graph, tensors, x[index : index + 1])
        assert all(np.array_equal(one[0], all_[index]) for one, all_ in zip(alone, together, strict=True))


def test_bounds_reach_what_extreme_inputs_give() -> None:
    for make in ALL_GRAPHS:
        graph, tensors = make()
        first = next(step for step in graph.steps if isinstance(step, Linear))
        for sign in (-1, 1):
            extreme = np.full_like(images(graph, 1, seed=0), sign * 1e6)
            values = run_activations(graph, tensors, extreme)
            assert np.abs(values["image"]).min() == graph.input.output.limit
            assert np.abs(values[first.name]).max() <= first.output.bound


def image(*shape: int) -> np.ndarray[Any, Any]:
    return np.arange(np.prod(shape), dtype=np.int16).reshape(1, *shape)


def test_layouts() -> None:
    kind = Activation((2, 3, 4), 1.0, 8)
    graph = Graph("m", Input("image", Layout.CHANNELS_FIRST, kind), (), ())
    user = np.arange(24, dtype=np.float32).reshape(1, 4, 2, 3)
    item = enter(graph, user)
    assert item[0, 1, 2, 3] == user[0, 3, 1, 2]
    assert np.array_equal(leave(item, kind, Layout.CHANNELS_FIRST), user)
    assert leave(item, Activation((2, 3, 4), 0.5, 8), Layout.PLAIN)[0, 1, 2, 3] == user[0, 3, 1, 2] / 2
    with pytest.raises(InputError):
        enter(graph, user[:, :3])
    with pytest.raises(ModelError):
        leave(item, Accumulator((2, 3, 4), 9), Layout.PLAIN)


def test_pooling_by_windows() -> None:
    x = image(3, 4, 1)  # rows 0 1 2 3 / 4 5 6 7 / 8 9 10 11
    rows, columns = (Window(0, 2), Window(0, 3, 2)), (Window(1, 3), Window(3, 4))
    largest = Pool("p", "x", Reduction.MAXIMUM, rows, columns, Activation((2, 2, 1), 1.0, 8))
    assert rearrange(largest, -x)[0, :, :, 0].tolist() == [[-1, -3], [-1, -3]]
    total = Pool("p", "x", Reduction.SUM, rows, columns, Accumulator((2, 2, 1), 99))
    assert rearrange(total, x)[0, :, :, 0].tolist() == [[1 + 2 + 5 + 6, 3 + 7], [1 + 2 + 9 + 10, 3 + 11]]


def test_sums_do_not_wrap() -> None:
    x = np.full((1, 40, 40, 1), 16383, np.int16)
    step = Pool("p", "x", Reduction.SUM, (Window(0, 40),), (Window(0, 40),), Accumulator((1, 1, 1), 2**31 - 1))
    assert rearrange(step, x).item() == 1600 * 16383


def test_moving_steps() -> None:
    x, kind = image(2, 3, 4), Activation((), 1.0, 8)
    permuted = rearrange(Permute("p", "x", (2, 0, 1), kind), x)
    assert permuted.shape == (1, 4, 2, 3) and permuted[0, 3, 1, 2] == x[0, 1, 2, 3]
    cut = rearrange(Slice("s", "x", (Window(1, 2), Window(0, 3, 2), Window(1, 3)), kind), x)
    assert cut.tolist() == [[[[13, 14], [21, 22]]]]
    padded = rearrange(Pad("p", "x", (0, 1, 0), (1, 0, 2), kind), x)
    assert padded.shape == (1, 3, 4, 6) and padded.sum() == x.sum() and padded[0, 1, 3, 3] == x[0, 1, 2, 3]
    flat = rearrange(Reshape("r", "x", Activation((6, 4), 1.0, 8)), x)
    assert flat[0].tolist() == x.reshape(6, 4).tolist()


def test_unknown_things_are_refused() -> None:
    step = Pointwise("p", "x", (Affine("m", "b"),), Activation((1,), 1.0, 8))
    with pytest.raises(ModelError):
        rearrange(step, image(1))
