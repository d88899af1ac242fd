"""Slalom: run a neural network on a GPU that nobody has to trust.

plan = slalom.compile(module, example_inputs, calibration)     # offline, needs torch
plan.save("network.slalom")
with slalom.Session(plan, protection="private") as session:    # the trusted side, no torch
    logits = session.run(images)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from slalom.errors import (
    ApiMisuse,
    AttestationError,
    DeviceError,
    InputError,
    IntegrityError,
    ModelError,
    PrivacyError,
    SlalomError,
    WireError,
)
from slalom.plan import Plan
from slalom.session import Session

if TYPE_CHECKING:
    from slalom.importer import CompileOptions, compile

__version__ = "0.1.0"

__all__ = [
    "ApiMisuse",
    "AttestationError",
    "CompileOptions",
    "DeviceError",
    "InputError",
    "IntegrityError",
    "ModelError",
    "Plan",
    "PrivacyError",
    "Session",
    "SlalomError",
    "WireError",
    "compile",
]


def __getattr__(name: str) -> Any:
    """`compile` and `CompileOptions` need torch, so they are imported when first asked for."""
    if name not in ("compile", "CompileOptions"):
        raise AttributeError(f"module 'slalom' has no attribute {name!r}")
    try:
        from slalom import importer
    except ModuleNotFoundError as error:
        raise ApiMisuse(
            f"slalom.{name} needs {error.name}, which is not installed",
            hint="install the importer extra, see the README",
        ) from error
    return getattr(importer, name)
