"""Sizes of enclaves: powers of two, never too small for what was measured."""

from __future__ import annotations

import pytest

from slalom.errors import ApiMisuse
from slalom.gramine import enclave_size, parse_enclave_size
from slalom.gramine.size import readable_enclave_size

MB = 10**6


def test_vgg_16_fits_what_decision_0013_saw() -> None:
    size = enclave_size(320 * MB, 8 * 19 * MB, 4)
    assert size == 2 << 30 > 2 * 600 * MB


@pytest.mark.parametrize(("held", "threads"), [(0, 1), (1, 1), (10**9, 4), (10**9, 64), (10**11, 1)])
def test_a_power_of_two_that_holds_it(held: int, threads: int) -> None:
    size = enclave_size(held, held // 10, threads)
    assert size & (size - 1) == 0
    assert size >= max(512 << 20, 2 * held)
    assert parse_enclave_size(readable_enclave_size(size)) == size


def test_more_than_there_is_is_refused() -> None:
    with pytest.raises(ApiMisuse, match="tebibyte"):
        enclave_size(1 << 40, 0, 1)


@pytest.mark.parametrize(
    "text", ["", "2", "3G", "2g", "2GB", "0G", "-2G", " 2G", "2G\n", "2.0G", "0x2G", "9999999G", "٢G"]
)
def test_no_size(text: str) -> None:
    with pytest.raises(ApiMisuse, match="is no enclave size"):
        parse_enclave_size(text)
