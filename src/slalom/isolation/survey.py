"""What this machine offers for isolation and evidence, for people. It applies nothing."""

from __future__ import annotations

import fcntl
import os
import resource
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from slalom.isolation.files import find_landlock
from slalom.isolation.filter import find_seccomp
from slalom.isolation.kernel import open_secret_memory
from slalom.isolation.report import SCOPES_ABI

_TEE_FILES = ("sys/kernel/config/tsm/report", "dev/attestation", "dev/tdx_guest", "dev/sev-guest", "dev/sgx_enclave")
_NO_TEE = "there is no TEE here: run inside a TDX or SEV-SNP guest, or under Gramine with SGX; nothing stands in for it"
_NO_INTERFACE = "a TEE's device is here without its evidence: mount configfs, on Linux 6.7 or later"


class Evidence(StrEnum):
    """Where evidence could come from on this machine. Existence alone: nothing is asked of it."""

    NONE = "none"
    CONFIGFS_TSM = "configfs-tsm"
    GRAMINE = "gramine"


@dataclass(frozen=True)
class Fact:
    """One thing that a machine has or lacks: its name, what was found, and, if it falls short, what to do."""

    name: str
    found: str
    hint: str | None = None


@dataclass(frozen=True)
class Survey:
    """What this machine offers. Sizes are bytes, -1 without a limit; `ptrace_scope` is Yama's 0 to 3, or None."""

    landlock_abi: int
    py_landlock: bool
    seccomp: bool
    libseccomp: bool
    memfd_secret: bool
    memfd_sealing: bool
    shared_memory_size: int
    ptrace_scope: int | None
    locked_memory_limit: int
    tee_files: tuple[str, ...]
    evidence: Evidence
    facts: tuple[Fact, ...]

    @property
    def strict_possible(self) -> bool:
        """Whether a worker can be isolated at `strict`."""
        return self.landlock_abi >= SCOPES_ABI and self.seccomp and self.libseccomp

    @property
    def missing(self) -> tuple[Fact, ...]:
        """What falls short, each with its hint."""
        return tuple(fact for fact in self.facts if fact.hint is not None)


def survey(root: Path = Path("/")) -> Survey:
    """Looks at this machine; files of /proc, /sys and /dev below another root, for tests. Never raises for a lack."""
    landlock, seccomp = find_landlock(), find_seccomp()
    secret, sealing = _has_secret_memory(), _has_sealing()
    shared, scope = _shared_memory_size(root), _ptrace_scope(root)
    locked = resource.getrlimit(resource.RLIMIT_MEMLOCK)[0]
    tee_files = tuple(f"/{name}" for name in _TEE_FILES if (root / name).exists())
    evidence = _evidence(tee_files)
    facts = (
        Fact("landlock", f"abi {landlock.abi}" if landlock.abi else "none", landlock.hint),
        Fact("seccomp", _word(seccomp.available), seccomp.hint),
        Fact("memfd_secret", _word(secret), None if secret else "boot Linux 6.5 or later, or with secretmem.enable=1"),
        Fact("memfd sealing", _word(sealing), None if sealing else "boot a kernel with CONFIG_MEMFD_CREATE"),
        _shared_memory_fact(shared),
        Fact("ptrace scope", "not restricted" if scope in (None, 0) else str(scope)),
        _locked_memory_fact(locked),
        _evidence_fact(evidence, tee_files),
    )
    return Survey(
        landlock.abi, landlock.library is not None, seccomp.kernel, seccomp.library is not None, secret, sealing,
        shared, scope, locked, tee_files, evidence, facts,
    )  # fmt: skip


def _has_secret_memory() -> bool:
    try:
        os.close(open_secret_memory())
    except OSError:
        return False
    return True


def _has_sealing() -> bool:
    """Whether shared memory can be kept from changing its size."""
    try:
        descriptor = os.memfd_create("slalom", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    except OSError:
        return False
    try:
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True


def _shared_memory_size(root: Path) -> int:
    try:
        status = os.statvfs(root / "dev/shm")
    except OSError:
        return 0
    return status.f_blocks * status.f_frsize


def _ptrace_scope(root: Path) -> int | None:
    try:
        return int((root / "proc/sys/kernel/yama/ptrace_scope").read_text("ascii"))
    except (OSError, ValueError):
        return None


def _evidence(tee_files: tuple[str, ...]) -> Evidence:
    if "/dev/attestation" in tee_files:
        return Evidence.GRAMINE
    return Evidence.CONFIGFS_TSM if "/sys/kernel/config/tsm/report" in tee_files else Evidence.NONE


def _shared_memory_fact(size: int) -> Fact:
    enough = size >= 256 << 20
    return Fact("/dev/shm", f"{size >> 20} MiB", None if enough else "give it more: mount -o remount,size=1G /dev/shm")


def _locked_memory_fact(limit: int) -> Fact:
    if limit == resource.RLIM_INFINITY:
        return Fact("locked memory", "no limit")
    hint = None if limit >= 1 << 20 else "raise the limit for keys: ulimit -l 1024 or more"
    return Fact("locked memory", f"{limit >> 10} KiB", hint)


def _evidence_fact(evidence: Evidence, tee_files: tuple[str, ...]) -> Fact:
    if evidence is not Evidence.NONE:
        return Fact("evidence", f"{evidence} ({', '.join(tee_files)})")
    return Fact("evidence", "none", _NO_INTERFACE if tee_files else _NO_TEE)


def _word(there: bool) -> str:
    return "yes" if there else "none"
