"""The trusted process makes itself unreadable to others of its user, and leaves no core file."""

from __future__ import annotations

import resource
from contextlib import suppress
from dataclasses import dataclass

from slalom.errors import DeviceError
from slalom.isolation.kernel import PR_GET_DUMPABLE, PR_SET_DUMPABLE, prctl
from slalom.isolation.level import Isolation


@dataclass(frozen=True)
class HardeningReport:
    """What is in force in the trusted process. `non_dumpable`: only root may trace it or read its memory."""

    non_dumpable: bool = False
    no_core_files: bool = False

    @property
    def missing(self) -> tuple[str, ...]:
        """The protections that are not in force, in words."""
        words = (("unreadable memory", self.non_dumpable), ("no core files", self.no_core_files))
        return tuple(word for word, there in words if not there)

    @property
    def summary(self) -> str:
        """One line for people."""
        return f"missing: {', '.join(self.missing)}" if self.missing else "unreadable memory, no core files"


def harden_process(level: Isolation) -> HardeningReport:
    """Hardens this process, for good; at `off` does nothing. Programs that it starts are readable again.

    Against root, or a process with CAP_SYS_PTRACE, this is no protection: confining the worker is. Raises DeviceError
    at `strict` if the kernel refuses.
    """
    if level is Isolation.OFF:
        return HardeningReport()
    report = HardeningReport(*forbid_dumps())
    if level is Isolation.STRICT and report.missing:
        hint = "see what forbids prctl and setrlimit here, or ask for best-effort isolation"
        raise DeviceError(f"the trusted process cannot be hardened: {report.missing[0]} is refused", hint=hint)
    return report


def forbid_dumps() -> tuple[bool, bool]:
    """Makes this process unreadable and its core files empty; whether each is so now."""
    with suppress(OSError):
        prctl(PR_SET_DUMPABLE, 0)
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    return prctl(PR_GET_DUMPABLE) == 0, resource.getrlimit(resource.RLIMIT_CORE) == (0, 0)
