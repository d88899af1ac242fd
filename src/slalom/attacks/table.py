"""The cheating devices by name."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, NamedTuple

from slalom.errors import ApiMisuse

if TYPE_CHECKING:
    from slalom.attacks.cheat import CheatingDevice
    from slalom.device.engine import TorchEngine


class Attack(NamedTuple):
    """A cheating device and what it does, in one line. Its class is imported when it is asked for: it needs torch."""

    module: str
    name: str
    description: str

    @property
    def device(self) -> type[CheatingDevice]:
        """The class."""
        found: type[CheatingDevice] = getattr(import_module(f"slalom.attacks.{self.module}"), self.name)
        return found


ATTACKS: Final[Mapping[str, Attack]] = MappingProxyType(
    {
        "flip_element": Attack("elements", "FlipElement", "flips one bit of one element"),
        "add_2_31": Attack("elements", "AddHalfRange", "adds 2^31 to one element"),
        "add_modulus_low": Attack("elements", "AddModulusLow", "adds the check's prime to one element, mod 2^32"),
        "border": Attack("elements", "Border", "adds one where the window reaches into the padding"),
        "orthogonal_ones": Attack("elements", "OrthogonalOnes", "adds an error orthogonal to the all-ones probe"),
        "orthogonal_guess": Attack(
            "elements", "OrthogonalGuess", "adds an error orthogonal to NumPy's probe of seed 0"
        ),
        "first_layer": Attack("elements", "FirstLayer", "flips one bit in the first linear step"),
        "last_layer": Attack("elements", "LastLayer", "flips one bit in the last linear step"),
        "shift": Attack("wholes", "Shift", "moves every element one place on"),
        "scale": Attack("wholes", "Scale", "doubles every element"),
        "zero": Attack("wholes", "Zero", "answers zeros"),
        "negate": Attack("wholes", "Negate", "changes every sign"),
        "garbage": Attack("wholes", "Garbage", "answers random words"),
        "swap_items": Attack("wholes", "SwapItems", "swaps two items of the batch"),
        "replay": Attack("memory", "Replay", "answers every later request with its first answer"),
        "late_truth": Attack("memory", "LateTruth", "answers each request with the truth of the one before"),
        "other_step": Attack("memory", "OtherStep", "answers with another step's claim"),
        "wrong_weights": Attack("networks", "WrongWeights", "computes with one weight changed by one"),
        "float_arithmetic": Attack("networks", "FloatArithmetic", "computes in float32"),
        "different_input": Attack("networks", "DifferentInput", "answers for an input that differs in one element"),
        "wrong_shape": Attack("forms", "WrongShape", "sends one element too few"),
        "wrong_dtype": Attack("forms", "WrongDtype", "sends 64-bit integers that equal the truth mod 2^32"),
        "short_answer": Attack("forms", "ShortAnswer", "leaves a claim out"),
        "extra_answer": Attack("forms", "ExtraAnswer", "sends a second claim for the same step"),
        "out_of_order": Attack("forms", "OutOfOrder", "exchanges the claims of two steps"),
    }
)


def names() -> tuple[str, ...]:
    """Every attack, in the order of the table."""
    return tuple(ATTACKS)


def make(
    name: str,
    seed: int = 0,
    step: str | None = None,
    threads: int | None = None,
    engine: TorchEngine | None = None,
) -> CheatingDevice:
    """The named cheating device. `step` is the linear step it lies about; None takes one in the middle.

    `threads` and `engine` are as for `LocalDevice`. Raises ApiMisuse for an unknown name; for an unknown step, or
    one that is not its own, the device raises it at `load`.
    """
    require_attack(name)
    from slalom.attacks.cheat import Choice

    return ATTACKS[name].device(Choice(seed, step), threads, engine)


def require_attack(name: str) -> None:
    """Raises ApiMisuse for a name that no cheating device has."""
    if name not in ATTACKS:
        raise ApiMisuse(f"there is no attack {name!r:.80}", hint=f"choose one of {', '.join(ATTACKS)}")
