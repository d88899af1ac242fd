"""Cheating devices by name, for tests, the demo and `--attack`: each lies about one linear step, and says that it did.

Enters: a plan, and what a device is given. Leaves: claims, one of them false. Must never see: `slalom.trusted`.

    cheat       the device that lies in one step, and counts its lies
    elements    one element, or a few
    wholes      the whole claim
    memory      true words of another request, step or place
    networks    true words of another network or input
    forms       another shape, type or number of claims
    table       the names
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from slalom.attacks.table import ATTACKS, Attack, make, names, require_attack

if TYPE_CHECKING:
    from slalom.attacks.cheat import CheatingDevice

__all__ = ["ATTACKS", "Attack", "CheatingDevice", "make", "names", "require_attack"]


def __getattr__(name: str) -> Any:
    """`CheatingDevice` needs torch, and is imported when it is first asked for; the names are not secret to anybody."""
    if name != "CheatingDevice":
        raise AttributeError(f"module 'slalom.attacks' has no attribute {name!r}")
    from slalom.attacks.cheat import CheatingDevice

    return CheatingDevice
