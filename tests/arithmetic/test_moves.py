"""The moves of every hand-built graph equal the reference's, on values of the walk itself."""

from __future__ import annotations

import numpy as np
import pytest

from reference.network import rearrange, run_activations
from reference.pointwise import apply_softmax
from slalom.arithmetic.moves import apply_move
from slalom.errors import ApiMisuse
from slalom.plan.steps import Activation, Concatenate, Pad, Permute, Reshape, Slice, Softmax
from slalom.plan.validation import infer_types, sources_of
from tests.graphs import every_step_graph, images

MOVES = (Concatenate, Reshape, Permute, Slice, Pad, Softmax)


def test_every_move_equals_the_reference() -> None:
    graph, tensors = every_step_graph()
    values, types = run_activations(graph, tensors, images(graph, 3, seed=1)), infer_types(graph)
    seen = set()
    for step in graph.steps:
        if not isinstance(step, MOVES):
            continue
        seen.add(type(step))
        sources = [values[name] for name in sources_of(step)]
        result = apply_move(step, sources, types)
        if isinstance(step, Softmax):
            kind = types[step.source]
            assert isinstance(kind, Activation)
            expected = apply_softmax(step, sources[0], kind.scale)
        elif isinstance(step, Concatenate):
            expected = np.concatenate(sources, axis=step.axis + 1)
        else:
            expected = rearrange(step, sources[0])
        assert result.dtype == (np.int16 if isinstance(step.output, Activation) else np.float32)
        assert result.flags.c_contiguous and result.shape == (3, *step.output.shape)
        np.testing.assert_array_equal(result, expected)
    assert seen == set(MOVES)


def test_other_steps_are_refused() -> None:
    graph, _ = every_step_graph()
    with pytest.raises(ApiMisuse, match="is a linear, not a move"):
        apply_move(graph.steps[0], [np.zeros((1, 2), np.int16)], {})  # type: ignore[arg-type]
