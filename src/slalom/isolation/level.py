"""How much isolation is asked for."""

from __future__ import annotations

from enum import StrEnum

from slalom.errors import ApiMisuse


class Isolation(StrEnum):
    """`strict` refuses to start without every protection, `best-effort` goes on and reports, `off` has none."""

    STRICT = "strict"
    BEST_EFFORT = "best-effort"
    OFF = "off"


def parse_isolation(word: str) -> Isolation:
    """The level that a word names. Raises ApiMisuse for any other word."""
    try:
        return Isolation(word)
    except ValueError:
        choices = ", ".join(Isolation)
        raise ApiMisuse(f"there is no isolation {word!r:.40}", hint=f"choose one of: {choices}") from None
