"""The refusals of `syscalls` as one seccomp filter over every thread, made by libseccomp through pyseccomp."""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from slalom.errors import DeviceError
from slalom.isolation.kernel import PR_GET_SECCOMP, prctl
from slalom.isolation.syscalls import ABSENT, DENIED, FIRST_UNKNOWN, LAST_UNKNOWN, NEWER, Argument, conditions

_UNKNOWN_NAME = -1  # smaller numbers: known, but not on this architecture


@dataclass(frozen=True)
class SeccompOffer:
    """What this machine offers. `library` is pyseccomp, or None, and then `hint` says how to get it."""

    kernel: bool
    library: ModuleType | None
    hint: str | None

    @property
    def available(self) -> bool:
        """Whether a filter can be made."""
        return self.kernel and self.library is not None


def find_seccomp() -> SeccompOffer:
    """Looks for seccomp. The library runs ldconfig when it is imported, so this comes before any confinement."""
    try:
        kernel = prctl(PR_GET_SECCOMP) >= 0
    except OSError:
        return SeccompOffer(False, None, "boot a kernel with CONFIG_SECCOMP_FILTER")
    try:
        import pyseccomp
    except ModuleNotFoundError:
        return SeccompOffer(kernel, None, "install pyseccomp, the extra named isolation")
    except (RuntimeError, OSError):  # how it says that the C library is missing
        return SeccompOffer(kernel, None, "install libseccomp, for Debian: apt install libseccomp2")
    return SeccompOffer(kernel, pyseccomp, None)


def make_filter(seccomp: ModuleType, *, gpu: bool) -> Any:
    """The filter for this very process, not yet in force. Raises DeviceError where libseccomp cannot make it."""
    try:
        made = seccomp.SyscallFilter(seccomp.ALLOW)
        made.set_attr(seccomp.Attr.CTL_TSYNC, 1)  # every thread, or none
        made.set_attr(seccomp.Attr.CTL_NNP, 1)
        made.set_attr(seccomp.Attr.ACT_BADARCH, seccomp.KILL_PROCESS)  # 32-bit and x32 calls have other numbers
        _add_rules(seccomp, made, gpu)
    except OSError as error:
        raise DeviceError(f"libseccomp cannot make the filter: {error.strerror}",
                          hint="libseccomp 2.5 or later is needed") from error  # fmt: skip
    return made


def load_filter(made: Any) -> None:
    """Puts a filter in force over all threads, for good. Raises OSError where the kernel refuses."""
    made.load()


def is_filtered() -> bool:
    """Whether a filter is in force over this thread, as the kernel says."""
    return prctl(PR_GET_SECCOMP) == 2


def _add_rules(seccomp: ModuleType, made: Any, gpu: bool) -> None:
    refused, absent = seccomp.ERRNO(errno.EPERM), seccomp.ERRNO(errno.ENOSYS)
    rules: list[tuple[int, str, tuple[Argument, ...]]] = [
        (refused, name, ()) for line in DENIED for name in line.split()
    ]
    rules += [(absent, name, ()) for name in ABSENT]
    rules += [(refused, name, arguments) for name, arguments in conditions(os.getpid(), gpu=gpu)]
    numbered = [(action, _number_of(seccomp, name), arguments) for action, name, arguments in rules]
    numbered += [(absent, number, ()) for number in range(FIRST_UNKNOWN, LAST_UNKNOWN + 1)]
    for action, number, arguments in numbered:
        if number >= 0:
            made.add_rule(action, number, *(_comparison(seccomp, one) for one in arguments))


def _number_of(seccomp: ModuleType, name: str) -> int:
    """A call's number here; negative if this architecture lacks it. Raises DeviceError for a name nobody knows."""
    number: int = seccomp.resolve_syscall(seccomp.Arch.NATIVE, name)
    if number == _UNKNOWN_NAME:
        number = NEWER.get(name, _UNKNOWN_NAME)
    if number == _UNKNOWN_NAME:
        raise DeviceError(f"libseccomp does not know the system call {name}", hint="libseccomp 2.5 or later is needed")
    return number


def _comparison(seccomp: ModuleType, argument: Argument) -> object:
    if argument.mask is None:
        return seccomp.Arg(argument.index, seccomp.NE, argument.value)
    return seccomp.Arg(argument.index, seccomp.MASKED_EQ, argument.mask, argument.value)
