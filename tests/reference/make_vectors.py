"""Regenerates `vectors.py`: one small convolution through every quantity of the protocol, in two fields.

Run as `python -m tests.reference.make_vectors > tests/reference/vectors.py`. The inputs are chosen by hand here, so
that the whole vector can be followed with pencil and paper; everything else is computed by the reference.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

from reference.blinding import blind, mask_image, signed, unblind
from reference.check import Layer, with_image
from reference.field import Field, P
from reference.linear import apply_step
from slalom.plan.steps import Accumulator, Convolution, Linear

IMAGE = [[1, 2], [3, 4]]  # (2, 2, 1)
WEIGHT = [[1, -2], [3, 4]]  # (2, 2, 1, 1): y[i, j] = 1 x[i, j] - 2 x[i, j+1] + 3 x[i+1, j] + 4 x[i+1, j+1]
PADDING = (0, 1, 0, 1)  # bottom and right, so that the output is (2, 2, 1)
PROBE = [[10, 20], [30, 40]]
LARGE_PROBE = [[P - 1, 1], [0, 2**50]]
MASK = [[2**31 - 1, -(2**31)], [-1, 5]]


class NotRandom:
    """Stands where randomness would: nothing in a vector is drawn."""


def make_layer() -> Layer:
    """The vector's linear step."""
    convolution = Convolution("w", (1, 1), PADDING, (1, 1), 1)
    step = Linear("conv", "image", (convolution,), Accumulator((2, 2, 1), 10 * 7))
    return Layer(step, {"w": np.array(WEIGHT, np.int8).reshape(2, 2, 1, 1)}, (2, 2, 1))


def square(values: Any) -> list[list[int]]:
    """An item (2, 2, 1) as nested lists."""
    return [[int(value) for value in row] for row in np.asarray(values).reshape(2, 2)]


def checked(layer: Layer, x: Any, y: Any, probe: list[list[int]], modulus: int) -> dict[str, Any]:
    """One round in one field."""
    field = Field(NotRandom(), modulus)  # type: ignore[arg-type]
    image = with_image(layer, np.array(probe, dtype=object).reshape(2, 2, 1), field)
    left, right = field.dot(y, image.s), field.dot(x, image.image)
    return {
        "modulus": modulus,
        "probe": probe,
        "probe_image": square(image.image),
        "claim_dot": left,
        "input_dot": right,
    }


def make_vector() -> dict[str, Any]:
    """Every quantity by name."""
    layer = make_layer()
    x = np.array(IMAGE).reshape(1, 2, 2, 1)
    y = apply_step(layer.step, layer.tensors, x)
    mask = np.array(MASK).reshape(x.shape)
    blinded = blind(x, mask)
    answer = signed(apply_step(layer.step, layer.tensors, blinded))
    image = mask_image(layer, mask)
    return {
        "image": IMAGE,
        "weight": WEIGHT,
        "padding": PADDING,
        "accumulator": square(y),
        "rounds": [
            checked(layer, x[0], y[0], PROBE, 101),
            checked(layer, x[0], y[0], PROBE, P),
            checked(layer, x[0], y[0], LARGE_PROBE, P),
        ],
        "mask": square(mask),
        "blinded": square(blinded),
        "answer": square(answer),
        "mask_image": square(image),
        "unblinded": square(unblind(answer, image)),
    }


def write_vector() -> str:
    """The text of `vectors.py`."""
    lines = ['"""Golden vectors: made by `make_vectors.py`, checked by hand in `test_reference_vectors.py`."""', ""]
    lines += ["from typing import Any", "", "VECTOR: dict[str, Any] = {"]
    for name, value in make_vector().items():
        if name == "rounds":
            lines += ['    "rounds": [']
            for one in value:
                lines += ["        {", *(f'            "{key}": {entry},' for key, entry in one.items()), "        },"]
            lines += ["    ],"]
        else:
            lines += [f'    "{name}": {value},']
    return "\n".join([*lines, "}", ""])


if __name__ == "__main__":
    sys.stdout.write(write_vector())
