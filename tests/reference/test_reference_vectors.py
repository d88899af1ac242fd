"""The golden vectors are what the generator makes, and what a pencil makes."""

from __future__ import annotations

from pathlib import Path

from reference.field import P
from tests.reference import vectors
from tests.reference.make_vectors import write_vector
from tests.reference.vectors import VECTOR


def test_file_is_what_the_generator_writes() -> None:
    assert Path(vectors.__file__).read_text() == write_vector()


def test_accumulator_by_hand() -> None:
    assert VECTOR["accumulator"] == [[1 - 4 + 9 + 16, 2 + 12], [3 - 8, 4]]


def test_probe_image_by_hand() -> None:
    # t[k, l] = 1 s[k, l] - 2 s[k, l-1] + 3 s[k-1, l] + 4 s[k-1, l-1]
    plain = [[10, 20 - 20], [30 + 30, 40 - 60 + 60 + 40]]
    assert VECTOR["rounds"][1]["probe_image"] == plain == [[10, 0], [60, 80]]
    assert VECTOR["rounds"][0]["probe_image"] == plain
    large = [[P - 1, 1 + 2], [-3, 2**50 + 3 - 4]]
    assert VECTOR["rounds"][2]["probe_image"] == [[value % P for value in row] for row in large]


def test_dots_by_hand() -> None:
    plain = 22 * 10 + 14 * 20 - 5 * 30 + 4 * 40
    assert plain == 1 * 10 + 2 * 0 + 3 * 60 + 4 * 80 == 510
    assert [one["claim_dot"] for one in VECTOR["rounds"]] == [510 % 101, 510, (-22 + 14 + 4 * 2**50) % P]
    for one in VECTOR["rounds"]:
        assert one["claim_dot"] == one["input_dot"]


def test_blinding_by_hand() -> None:
    assert VECTOR["blinded"] == [[-(2**31), 2 - 2**31], [2, 9]]
    # 1 r00 - 2 r01 + 3 r10 + 4 r11 = 2**31 - 1 + 2**32 - 3 + 20 -> 2**31 + 16 -> -2**31 + 16
    assert VECTOR["mask_image"] == [[-(2**31) + 16, -(2**31) + 15], [-1 - 10, 5]]
    # -2**31 + (-4 + 2**32) + 6 + 36 -> -2**31 + 38, and (2 - 2**31) + 27
    assert VECTOR["answer"] == [[-(2**31) + 38, -(2**31) + 29], [2 - 18, 9]]
    assert VECTOR["unblinded"] == VECTOR["accumulator"]
