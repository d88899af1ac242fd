"""The options of the mask bank, as several commands take them."""

from __future__ import annotations

import math
from pathlib import Path

from slalom.errors import ApiMisuse
from slalom.trusted.bank import GIGABYTE, MaskBankOptions, WhenEmpty

MEMORY_GIGABYTES = 4.0


def parse_mask_bank(
    target: int | None, request: int, memory: float, spill: Path | None, when_empty: str, *, masked: bool
) -> MaskBankOptions | None:
    """The options of a bank for `target` images; None without one. Raises ApiMisuse for what has no meaning."""
    if target is None:
        if spill is not None:
            raise ApiMisuse("--mask-spill is for a mask bank", hint="--mask-bank IMAGES")
        return None
    if not masked:
        raise ApiMisuse("a mask bank is for levels with masks", hint="use --protection private or blinded")
    if when_empty not in list(WhenEmpty):
        raise ApiMisuse(f"--when-empty is {', '.join(WhenEmpty)}, not {when_empty!r:.40}")
    return MaskBankOptions(
        request=request, target=target, memory=parse_gigabytes("--mask-memory", memory), spill=spill,
        when_empty=WhenEmpty(when_empty),
    )  # fmt: skip


def parse_gigabytes(option: str, value: float) -> int:
    """Bytes. Raises ApiMisuse unless positive and finite."""
    if not (math.isfinite(value) and value * GIGABYTE >= 1):
        raise ApiMisuse(f"{option} must be positive, in gigabytes, not {value}")
    return int(value * GIGABYTE)
