"""Words from the device are taken as they are, or refused."""

from __future__ import annotations

import array

import numpy as np
import pytest

from slalom.errors import IntegrityError
from slalom.link.intake import take_words

SHAPE = (2, 3, 4)


class Chameleon(np.ndarray):
    """An array that would say another shape on every reading."""


def test_the_very_array_is_taken() -> None:
    words = np.arange(24, dtype=np.int32).reshape(SHAPE)
    assert take_words(words, SHAPE, "stem") is words
    words.flags.writeable = False
    assert take_words(words, SHAPE, "stem") is words


def misfits() -> dict[str, object]:
    words = np.zeros(SHAPE, np.int32)
    raw = np.zeros(97, np.uint8)
    return {
        "none": None,
        "list": words.tolist(),
        "memoryview": memoryview(words),
        "array": array.array("i", range(24)),
        "subclass": words.view(Chameleon),
        "masked": np.ma.masked_array(words),
        "scalar": np.int32(3),
        "int16": words.astype(np.int16),
        "int64": words.astype(np.int64),
        "uint32": words.view(np.uint32),
        "float32": words.astype(np.float32),
        "object": words.astype(object),
        "big endian": words.astype(">i4"),
        "records": np.zeros(SHAPE, [("x" * 500, "<i4")]),
        "flat": words.reshape(-1),
        "one more item": np.zeros((3, 3, 4), np.int32),
        "one less": np.zeros((2, 3, 3), np.int32),
        "one more axis": np.zeros((1, *SHAPE), np.int32),
        "empty": np.zeros((0, 3, 4), np.int32),
        "transposed": np.zeros((4, 3, 2), np.int32).T,
        "strided": np.zeros((2, 3, 8), np.int32)[..., ::2],
        "broadcast": np.broadcast_to(np.int32(1), SHAPE),
        "unaligned": raw[1:].view(np.int32).reshape(SHAPE),
    }


@pytest.mark.parametrize("name", misfits())
def test_anything_else_is_refused_by_name(name: str) -> None:
    with pytest.raises(IntegrityError) as caught:
        take_words(misfits()[name], SHAPE, "stem")
    assert caught.value.step == "stem"
    assert len(str(caught.value)) < 200
