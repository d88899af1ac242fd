"""A worker gives up what it does not need, in two steps: before any thread starts, and once it has loaded.

`begin_confinement` comes first, since landlock holds for the calling thread and those it starts later. Then the worker
imports NumPy and torch, loads its plan, and calls `seal`.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from slalom.errors import ApiMisuse, DeviceError
from slalom.isolation.files import FileList, LandlockOffer, find_landlock, list_files, restrict_files
from slalom.isolation.filter import SeccompOffer, find_seccomp, is_filtered, load_filter, make_filter
from slalom.isolation.kernel import PR_GET_NO_NEW_PRIVS, PR_SET_NO_NEW_PRIVS, PR_SET_PDEATHSIG, prctl
from slalom.isolation.level import Isolation
from slalom.isolation.process import forbid_dumps
from slalom.isolation.report import NETWORK_ABI, SCOPES_ABI, IsolationReport

_STANDARD = frozenset((0, 1, 2))
_COMPILES = "a worker that compiles kernels while it runs must start programs: use a worker on the CPU"
_NO_LANDLOCK = LandlockOffer(0, None, _COMPILES)
_NO_SECCOMP = SeccompOffer(False, None, _COMPILES)


@dataclass
class Confinement:
    """A worker whose files are restricted and whose system calls are not yet. `begun` says what is in force so far."""

    level: Isolation
    begun: IsolationReport
    seccomp: SeccompOffer | None = None
    _sealed: bool = field(default=False, init=False)

    def seal(self) -> IsolationReport:
        """Restricts the system calls of all threads, for good; gives what is in force.

        After it no program, process or socket can be started or opened, so load and warm up before: threads can
        still be started. At `off` it does nothing. Raises ApiMisuse the second time, and DeviceError at `strict`
        where the kernel refuses.
        """
        if self._sealed:
            raise ApiMisuse("this worker is sealed already")
        self._sealed = True
        if self.seccomp is None or self.seccomp.library is None:
            return self.begun
        try:
            load_filter(make_filter(self.seccomp.library, gpu=self.begun.relaxed_for_gpu))
        except OSError as error:
            if self.level is Isolation.STRICT:
                raise _refusal("seccomp", f"the kernel refused the filter: {error.strerror}") from error
            return self.begun
        return replace(self.begun, seccomp=is_filtered())


def begin_confinement(
    level: Isolation,
    *,
    readable: Sequence[Path] = (),
    writable: Sequence[Path] = (),
    keep: Collection[int] = (),
    parent: int | None = None,
    gpu: bool = False,
    compiles: bool = False,
) -> Confinement:
    """Confines this process, for good: call it in a fresh worker before NumPy or torch is imported.

    `readable` and `writable` are files, or folders with all below them, beside what Python and torch read themselves.
    Folders of `sys.path` become readable: start the worker with `-P`, or the folder it starts in is one. `keep` are
    the descriptors that stay open beside 0, 1 and 2. `parent` is the process that started the worker: the kernel kills
    the worker when the *thread* that started it ends, at every level. `gpu` opens the device files of a GPU.
    `compiles` says that the worker makes its kernels when they are first used, and so starts a compiler and writes
    files: neither its files nor its system calls are restricted then, and the report says so.

    Raises ApiMisuse for a path that does not exist, and DeviceError at `strict` for the first protection that this
    machine lacks or this worker cannot have, before anything but the parent death signal is in force.
    """
    report = IsolationReport(parent_death_signal=_die_with(parent))
    if level is Isolation.OFF:
        return Confinement(level, report)
    files = list_files(readable, writable, gpu=gpu)
    landlock, seccomp = (_NO_LANDLOCK, _NO_SECCOMP) if compiles else (find_landlock(), find_seccomp())
    if level is Isolation.STRICT:
        _check_offers(landlock, seccomp)
    report = replace(report, no_core_dumps=all(forbid_dumps()), relaxed_for_gpu=gpu)
    report = replace(report, no_new_privs=_give_up_privileges())
    report = replace(report, descriptors_closed=_close_all_but(_STANDARD | set(keep)))
    confinement = Confinement(level, _restrict(landlock, files, report), seccomp)
    if level is Isolation.STRICT:
        _check_begun(confinement.begun, parent)
    return confinement


def _die_with(parent: int | None) -> bool:
    """Asks for SIGKILL when the parent goes, and obeys at once if it went before this was asked."""
    if parent is None:
        return False
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)
    return True


def _check_offers(landlock: LandlockOffer, seccomp: SeccompOffer) -> None:
    if landlock.abi < SCOPES_ABI:
        raise _refusal("landlock" if landlock.abi == 0 else "landlock scopes", landlock.hint)
    if not seccomp.available:
        raise _refusal("seccomp", seccomp.hint)


def _check_begun(report: IsolationReport, parent: int | None) -> None:
    later = {"seccomp"} if parent is not None else {"seccomp", "parent death signal"}
    missing = [word for word in report.missing if word not in later]
    if missing:
        raise _refusal(missing[0], "see what forbids it here")


def _refusal(protection: str, hint: str | None) -> DeviceError:
    return DeviceError(f"a worker cannot be isolated strictly: {protection} is missing",
                       hint=f"{hint}, or ask for best-effort isolation")  # fmt: skip


def _give_up_privileges() -> bool:
    """No program started from here gains rights, as seccomp asks of whoever is not root."""
    with suppress(OSError):
        prctl(PR_SET_NO_NEW_PRIVS, 1)
    return prctl(PR_GET_NO_NEW_PRIVS) == 1


def _close_all_but(kept: Collection[int]) -> bool:
    """Closes every other descriptor; whether none is left."""
    for descriptor in _open_descriptors() - set(kept):
        with suppress(OSError):  # the one that listed the folder
            os.close(descriptor)
    return not {one for one in _open_descriptors() - set(kept) if _is_open(one)}


def _open_descriptors() -> set[int]:
    return {int(name) for name in os.listdir("/proc/self/fd")}  # noqa: PTH208 - names, and no paths


def _is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


def _restrict(landlock: LandlockOffer, files: FileList, report: IsolationReport) -> IsolationReport:
    """The report with landlock in force; at best effort without it, where the kernel refuses."""
    if landlock.library is None or landlock.abi == 0:
        return report
    try:
        restrict_files(landlock.library, files)
    except (OSError, landlock.library.LandlockError):
        return report
    network, scopes = landlock.abi >= NETWORK_ABI, landlock.abi >= SCOPES_ABI
    return replace(report, landlock_abi=landlock.abi, landlock_network=network, landlock_scopes=scopes)
