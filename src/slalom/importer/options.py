"""How a network is to be compiled."""

from __future__ import annotations

from dataclasses import dataclass

from slalom.errors import ApiMisuse
from slalom.plan.steps import MAXIMUM_BITS, MINIMUM_BITS


@dataclass(frozen=True)
class CompileOptions:
    """`activation_bits`: the most bits of an activation, 2..15; the range proof may leave fewer.

    `weight_bits`: bits of a weight, 2..8. `minimum_bits`: fewer activation bits than these are refused.
    `minimum_chain_bits`: linear maps that follow one another become one step only where the proof of the whole chain
    leaves at least so many bits; a lower number saves exchanges and costs accuracy. Raises ApiMisuse.
    """

    activation_bits: int = 12
    weight_bits: int = 8
    minimum_bits: int = 6
    minimum_chain_bits: int = 8

    def __post_init__(self) -> None:
        for name in ("activation_bits", "minimum_bits", "minimum_chain_bits"):
            if not MINIMUM_BITS <= getattr(self, name) <= MAXIMUM_BITS:
                raise ApiMisuse(f"{name} is {MINIMUM_BITS}..{MAXIMUM_BITS}, not {getattr(self, name)}")
        if not 2 <= self.weight_bits <= 8:
            raise ApiMisuse(f"weight_bits is 2..8, not {self.weight_bits}")
        if self.minimum_bits > self.activation_bits:
            raise ApiMisuse(f"minimum_bits {self.minimum_bits} exceeds activation_bits {self.activation_bits}")

    @property
    def weight_limit(self) -> int:
        """The largest magnitude of a quantised weight, at most 127."""
        return int(2 ** (self.weight_bits - 1)) - 1
