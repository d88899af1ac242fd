"""The allow-list of files: what a worker may read and write, by landlock through py_landlock.

Mapping a shared library needs the right to read it. The right to execute is given to nothing.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from slalom.errors import ApiMisuse
from slalom.isolation.report import SCOPES_ABI

_HINT_KERNEL = "boot Linux 6.12 or later with landlock among its security modules (lsm=landlock,...)"

# What Python, NumPy and torch read on a CPU, found by tracing them, beside the folders that Python itself names.
SYSTEM = (
    "/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib",  # shared libraries, locales, OpenSSL's settings
    "/etc/ld.so.cache", "/etc/localtime", "/usr/share/locale", "/usr/share/zoneinfo",
    "/proc/cpuinfo", "/proc/meminfo", "/sys/devices/system/cpu", "/sys/devices/system/node",
    "/proc/self/maps", "/proc/self/status", "/proc/self/stat", "/proc/self/statm", "/dev/urandom",
)  # fmt: skip
SINKS = ("/dev/null",)

# What the CUDA driver opens besides, where it exists.
GPU_READABLE = ("/proc/driver/nvidia", "/proc/devices", "/proc/modules", "/proc/self", "/proc/version",
                "/sys/bus/pci", "/sys/devices", "/sys/module/nvidia", "/sys/class/drm", "/etc/nvidia")  # fmt: skip
GPU_DEVICES = "nvidia*"  # in /dev: read, written and controlled with ioctl


@dataclass(frozen=True)
class LandlockOffer:
    """What this machine offers. `abi` is the kernel's, 0 without landlock or its library; then `hint` says why."""

    abi: int
    library: ModuleType | None
    hint: str | None


@dataclass(frozen=True)
class FileList:
    """Existing paths: to read, to write, and device files to read, write and control."""

    readable: tuple[Path, ...]
    writable: tuple[Path, ...]
    devices: tuple[Path, ...]


def find_landlock() -> LandlockOffer:
    """Looks for landlock. The library runs ldconfig when it is first used, so this comes before any confinement."""
    try:
        import py_landlock
    except ModuleNotFoundError:
        return LandlockOffer(0, None, "install py-landlock, the extra named isolation")
    try:
        abi = int(py_landlock.get_abi_version())
    except py_landlock.LandlockError:
        return LandlockOffer(0, py_landlock, _HINT_KERNEL)
    return LandlockOffer(abi, py_landlock, None if abi >= SCOPES_ABI else _HINT_KERNEL)


def list_files(readable: Sequence[Path], writable: Sequence[Path], *, gpu: bool) -> FileList:
    """The caller's paths with what Python, torch and, if asked, a GPU's driver need.

    An empty entry of `sys.path` (the current folder) is left out. Raises ApiMisuse for a path that does not exist.
    """
    for path in (*readable, *writable):
        if not path.exists():
            raise ApiMisuse(f"a worker cannot be given {str(path)!r:.200}, which does not exist")
    python = [Path(entry) for entry in (sys.prefix, sys.base_prefix, sys.exec_prefix, *sys.path) if entry]
    wanted = [*python, *map(Path, SYSTEM), *(map(Path, GPU_READABLE) if gpu else ())]
    devices = sorted(Path("/dev").glob(GPU_DEVICES)) if gpu else []
    return FileList((*readable, *_existing(wanted)), (*writable, *_existing(map(Path, SINKS))), tuple(devices))


def restrict_files(library: ModuleType, files: FileList) -> None:
    """Puts the allow-list in force for this thread and all that it starts, for good, and forbids TCP.

    Connections to abstract sockets and signals out of the worker are forbidden from ABI 6. Raises OSError or the
    library's LandlockError where the kernel refuses.
    """
    fs = library.AccessFs
    read, write = fs.READ_FILE, fs.WRITE_FILE | fs.TRUNCATE
    ruleset = library.Landlock(strict=False)  # rights that this kernel has not are left out
    for path in files.readable:
        ruleset.add_path_rule(path, access=read | fs.READ_DIR if path.is_dir() else read)
    for path in files.writable:
        if path.is_dir():
            ruleset.allow_read_write(path)
        else:
            ruleset.add_path_rule(path, access=read | write)
    for path in files.devices:
        inside = fs.READ_DIR if path.is_dir() else fs.IOCTL_DEV
        ruleset.add_path_rule(path, access=read | write | inside | fs.IOCTL_DEV)
    ruleset.apply()


def _existing(paths: Iterable[Path]) -> tuple[Path, ...]:
    return tuple(path for path in dict.fromkeys(paths) if path.exists())
