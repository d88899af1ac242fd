"""Slalom: run a neural network on a GPU that nobody has to trust.

plan = slalom.compile(module, example_inputs, calibration)     # offline, needs torch
plan.save("network.slalom")
with slalom.Session(plan, protection="private") as session:    # the trusted side, no torch
    logits = session.run(images)

Names are imported when first asked for: a worker must be confined before NumPy starts threads of its own, and
`import slalom` alone starts none.
"""

from __future__ import annotations

from importlib import import_module
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from slalom.errors import (
    ApiMisuse,
    AttestationError,
    DeviceError,
    InputError,
    IntegrityError,
    MaskError,
    ModelError,
    PrivacyError,
    SlalomError,
    WireError,
)

if TYPE_CHECKING:
    from slalom.importer import CompileOptions, compile
    from slalom.plan import Plan
    from slalom.session import Session
    from slalom.trusted.bank import MaskBankOptions

__version__ = "0.1.0"

__all__ = [
    "ApiMisuse",
    "AttestationError",
    "CompileOptions",
    "DeviceError",
    "InputError",
    "IntegrityError",
    "MaskBankOptions",
    "MaskError",
    "ModelError",
    "Plan",
    "PrivacyError",
    "Session",
    "SlalomError",
    "WireError",
    "compile",
]

_ORIGIN = MappingProxyType(
    {
        "CompileOptions": "slalom.importer",
        "MaskBankOptions": "slalom.trusted.bank",
        "Plan": "slalom.plan",
        "Session": "slalom.session",
        "compile": "slalom.importer",
    }
)


def __getattr__(name: str) -> Any:
    """The names that need NumPy or torch, imported when first asked for."""
    if name not in _ORIGIN:
        raise AttributeError(f"module 'slalom' has no attribute {name!r}")
    try:
        return getattr(import_module(_ORIGIN[name]), name)
    except ModuleNotFoundError as error:
        if _ORIGIN[name] != "slalom.importer":
            raise
        raise ApiMisuse(
            f"slalom.{name} needs {error.name}, which is not installed",
            hint="install the importer extra, see the README",
        ) from error
