"""The error tree. Each class says who is at fault, and the command line maps each to an exit code.

Messages are one line, lower case, and hold no secret: never an element of an activation, a mask or a probe.
"""

from __future__ import annotations


class SlalomError(Exception):
    """Any refusal by Slalom. `hint`, where there is one, says what to do about it."""

    exit_code = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint


class ApiMisuse(SlalomError):  # noqa: N818 - the name that rustls made known
    """The caller asked for something that has no meaning: zero rounds, a closed session, a wrong shape."""

    exit_code = 2


class IntegrityError(SlalomError):
    """The device lied or broke: a linear result failed its check. The session is over; `step` names where."""

    exit_code = 3

    def __init__(self, message: str, *, step: str, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.step = step


class ModelError(SlalomError):
    """The network cannot be compiled, or a plan file is not what it must be."""

    exit_code = 4


class PrivacyError(SlalomError):
    """A mask would be used twice, or a secret would leave its process: refused before anything is sent."""

    exit_code = 5


class WireError(SlalomError):
    """What arrived over a link does not follow the protocol."""

    exit_code = 6


class DeviceError(SlalomError):
    """The device is missing, died, or did not answer in time."""

    exit_code = 7


class AttestationError(SlalomError):
    """Evidence is missing, stale, or not what the policy accepts."""

    exit_code = 8


class MaskError(SlalomError):
    """No mask is ready where none may be made, or a spilled one is not what was sealed. The request was not begun."""

    exit_code = 10


class InputError(ApiMisuse):
    """An image or array from the user is not usable: wrong shape, wrong type, not finite, unreadable."""

    exit_code = 9


def afresh(error: SlalomError) -> SlalomError:
    """The same error to be raised again. LOAD-BEARING: one that is kept and raised keeps the memory of those it met.

    Of those that have no more to say than a message and a hint: the ends of a conversation.
    """
    return type(error)(str(error), hint=error.hint)
