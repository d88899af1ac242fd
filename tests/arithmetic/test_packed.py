"""Claims of three bytes: the same bits as claims of four, from every instruction set, and each byte read once."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest

from slalom.arithmetic.dispatch import make_dispatch
from slalom.arithmetic.field import P
from slalom.arithmetic.fused import PassInput, pack_claims, run_pass, unpack_claims
from slalom.arithmetic.pointwise import Program, prepare_program
from slalom.errors import ApiMisuse
from slalom.plan.steps import Activation, Affine, Apply, Function, Operation, Pointwise
from tests.isas import FUSED_ISAS

LIMIT = 2**23
PROGRAMS: dict[str, tuple[Operation, ...]] = {
    "affine": (Affine("m", "b"),),
    "relu": (Affine("m", "b"), Apply(Function.RELU)),
    "sigmoid": (Affine("m", "b"), Apply(Function.SIGMOID)),  # not in the merged loop
}


def program_of(name: str, count: int, channels: int) -> Program:
    tensors = {
        "m": np.linspace(1e-4, 2e-4, channels, dtype=np.float32),
        "b": np.linspace(-1, 1, channels, dtype=np.float32),
    }
    return prepare_program(Pointwise("f", "c", PROGRAMS[name], Activation((count,), 2.0**-4, 12)), tensors, {})


def claims_of(batch: int, count: int) -> np.ndarray:
    words = np.random.default_rng(count).integers(-LIMIT, LIMIT, (batch, count), dtype=np.int32)
    words[0, 0], words[-1, -1] = -LIMIT, LIMIT - 1
    return words


@pytest.mark.parametrize("count", [1, 5, 7, 16, 48, 1023, 1024, 5000])
def test_packing_is_undone_by_unpacking(count: int) -> None:
    words = claims_of(3, count)
    packed = pack_claims(words)
    assert packed.shape == (3, count, 3) and packed.dtype == np.uint8
    np.testing.assert_array_equal(unpack_claims(packed), words)


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("name", PROGRAMS)
@pytest.mark.parametrize(
    ("count", "channels"), [(1, 1), (7, 7), (16, 16), (48, 16), (1000, 8), (5008, 16), (40_000, 32)]
)
@pytest.mark.parametrize("isa", FUSED_ISAS)
def test_packed_claims_give_the_bits_of_plain_ones(
    isa: str, count: int, channels: int, name: str, threads: int
) -> None:
    dispatch, words = make_dispatch(isa, threads), claims_of(3, count)
    random = np.random.default_rng(1)
    probe, image = (random.integers(0, P, count, dtype=np.uint64) for _ in range(2))
    program = program_of(name, count, channels)
    plain = run_pass(dispatch, PassInput(words, None, (probe,), program, {}, (image,), None))
    packed = run_pass(dispatch, PassInput(pack_claims(words), None, (probe,), program, {}, (image,), None))
    for a, b in [
        (plain.values, packed.values),
        (plain.source_dots, packed.source_dots),
        (plain.output_dots, packed.output_dots),
    ]:
        np.testing.assert_array_equal(a, b)
    dispatch.close()


@pytest.mark.parametrize("isa", FUSED_ISAS)
def test_a_packed_claim_is_read_once(isa: str) -> None:
    """The dots and the values are of the same words, whatever another thread does to the bytes."""
    words = np.zeros((1, 2**20), np.int32)
    packed, stopped, mixed = pack_claims(words), threading.Event(), 0
    ones = np.ones(2**20, np.uint64)
    tensors = {"m": np.ones(1, np.float32), "b": np.zeros(1, np.float32)}
    step = Pointwise("y", "c", (Affine("m", "b"),), Activation((2**20,), 1.0, 12))
    program = prepare_program(step, tensors, {})
    low = packed[:, :, 0]

    def flip() -> None:
        while not stopped.is_set():
            np.bitwise_xor(low, 1, out=low)

    thread = threading.Thread(target=flip)
    thread.start()
    dispatch = make_dispatch(isa, threads=1)
    try:
        end, passes = time.monotonic() + 20, 0
        while passes < 20 or (not mixed and time.monotonic() < end):
            passes += 1
            result = run_pass(dispatch, PassInput(packed, None, (ones,), program, {}, (), None))
            total = int(result.values.sum(dtype=np.int64))
            assert total == int(result.source_dots[0, 0])
            mixed += 0 < total < 2**20
    finally:
        stopped.set()
        thread.join()
    assert mixed, "the claim never changed during a pass"


@pytest.mark.parametrize("shape", [(2, 9), (2, 3, 4), (2, 3, 2), (2, 3, 3, 1)])
def test_other_bytes_are_no_packed_claims(shape: tuple[int, ...]) -> None:
    with pytest.raises(ApiMisuse):
        run_pass(make_dispatch(threads=1), PassInput(np.zeros(shape, np.uint8), None, (), None, {}, (), None))


def test_a_packed_claim_has_no_mask_image() -> None:
    """Masked words fill all 32 bits."""
    words = claims_of(2, 16)
    given = PassInput(pack_claims(words), words, (), program_of("affine", 16, 1), {}, (), None)
    with pytest.raises(ApiMisuse, match="only claims of four bytes"):
        run_pass(make_dispatch(threads=1), given)
