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

from slalom.attacks.cheat import CheatingDevice
from slalom.attacks.table import ATTACKS, Attack, make, names

__all__ = ["ATTACKS", "Attack", "CheatingDevice", "make", "names"]
