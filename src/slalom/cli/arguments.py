"""Checks of what several commands take, made before any work is."""

from __future__ import annotations

import os
from pathlib import Path

from slalom.arithmetic.dispatch import Isa, available_isas
from slalom.errors import ApiMisuse, ModelError
from slalom.fleet.roster import IN_PROCESS, SPAWN
from slalom.link.endpoint import parse_endpoint


def require_positive(option: str, value: int | None) -> None:
    """Raises ApiMisuse for a number below one; None stands for the default."""
    if value is not None and value < 1:
        raise ApiMisuse(f"{option} must be at least 1, not {value}")


def parse_isa(word: str | None) -> Isa | None:
    """The instruction set of that name, None for None. Raises ApiMisuse if unknown, or not this processor's."""
    if word is None:
        return None
    choices = ", ".join(available_isas())
    if word not in list(Isa):
        raise ApiMisuse(f"unknown instruction set {word!r:.40}", hint=f"choose one of {choices}")
    if word not in available_isas():
        raise ApiMisuse(f"this processor cannot run {word}", hint=f"choose one of {choices}")
    return Isa(word)


def require_devices(devices: list[str]) -> None:
    """Raises ApiMisuse for a place that no worker can be at."""
    for device in devices:
        if device not in (SPAWN, IN_PROCESS):
            parse_endpoint(device)


def require_writable(path: Path) -> None:
    """Raises ModelError where no file can be put at `path`: found before minutes of work, not after."""
    if path.is_dir():
        raise ModelError(f"cannot write {path}: it is a directory", hint=f"give a file: -o {path / 'network.slalom'}")
    if not path.parent.is_dir():
        raise ModelError(f"cannot write {path}: no directory {path.parent}", hint="make the directory first")
    if not os.access(path.parent, os.W_OK):
        raise ModelError(f"cannot write {path}: {path.parent} is read-only", hint="-o FILE writes elsewhere")
