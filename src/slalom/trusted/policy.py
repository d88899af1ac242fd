"""What the user chose: who sees what, and how results are checked. One value, made consistent once."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TypeVar

from slalom.errors import ApiMisuse

MAXIMUM_ROUNDS = 64

Choice = TypeVar("Choice", bound=StrEnum)


class Protection(StrEnum):
    """How far the device is trusted, from wholly to not at all."""

    DEVICE = "device"  # the device does and sees everything: the unprotected baseline
    ENCLAVE = "enclave"  # the trusted side does everything: the slow baseline
    VERIFIED = "verified"  # the device sees everything, every linear result is checked
    BLINDED = "blinded"  # the device sees uniform noise, nothing is checked
    PRIVATE = "private"  # the device sees uniform noise, every linear result is checked

    @property
    def checked(self) -> bool:
        """Whether a wrong linear result is refused."""
        return self in (Protection.VERIFIED, Protection.PRIVATE)

    @property
    def masked(self) -> bool:
        """Whether the device sees only blinded words."""
        return self in (Protection.BLINDED, Protection.PRIVATE)


class Check(StrEnum):
    """Where the probes of a check come from."""

    DIRECT = "direct"  # fresh probes for every item, no state
    BATCHED = "batched"  # the batch combined with random coefficients, one fresh probe for it
    PREPROCESSED = "preprocessed"  # secret probes and their images made once per session


class Schedule(StrEnum):
    """How `verified` uses the device."""

    AHEAD = "ahead"  # the device runs the whole network and the checks follow behind
    LAYERWISE = "layerwise"  # one exchange for every linear step, as the research prototype did


@dataclass(frozen=True)
class Policy:
    """A protection level with its check. `rounds` is 1..64 and counts independent probes for each check.

    Raises ApiMisuse for fewer than one round, or too many. `check`, `rounds` and `schedule` mean nothing at levels
    without checks and are kept as given.
    """

    protection: Protection = Protection.PRIVATE
    check: Check = Check.PREPROCESSED
    rounds: int = 1
    schedule: Schedule = Schedule.AHEAD

    def __post_init__(self) -> None:
        if type(self.rounds) is not int or not 1 <= self.rounds <= MAXIMUM_ROUNDS:
            raise ApiMisuse(
                f"rounds must be 1..{MAXIMUM_ROUNDS}, not {self.rounds!r}",
                hint="a check of zero rounds would accept every lie",
            )

    @property
    def exchanges(self) -> bool:
        """Whether activations cross the boundary step by step."""
        layerwise = self.protection is Protection.VERIFIED and self.schedule is Schedule.LAYERWISE
        return self.protection.masked or layerwise


def parse_policy(protection: str, check: str, rounds: int, schedule: str) -> Policy:
    """The policy named by four words. Raises ApiMisuse naming the unknown one."""
    return Policy(_member(Protection, protection), _member(Check, check), rounds, _member(Schedule, schedule))


def _member(kind: type[Choice], word: str) -> Choice:
    try:
        return kind(word)
    except ValueError as error:
        choices = ", ".join(kind)
        raise ApiMisuse(f"unknown {kind.__name__.lower()} {word!r:.60}", hint=f"choose one of {choices}") from error
