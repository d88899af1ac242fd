"""The manifest as a document: what runs in the enclave, with which arguments, on which files, and nothing else.

Every key is of Gramine 1.9's manifest syntax (`loader.entrypoint` is a table since then).
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path, PurePosixPath
from typing import Any

from slalom.errors import ApiMisuse, ModelError
from slalom.gramine.check import SHARED_MEMORY, check_manifest
from slalom.gramine.measure import Installation, TrustedFile
from slalom.gramine.size import readable_enclave_size

_GRAMINE_THREADS = 4  # main, inter-process, timers, one handshake: the least that Gramine's documentation asks for
_SESSION_THREADS = 4  # those that wait for the device, one a micro-batch, and one that a timeout may leave behind
_ADDRESS = re.compile(r"tcp:(\[[0-9a-fA-F:.]+\]|[0-9.]+):([1-9][0-9]{0,4})")


class Avx512(StrEnum):
    """Whether the enclave may start where the processor lacks AVX-512. All instruction sets give the same bits."""

    UNSPECIFIED = "unspecified"
    REQUIRED = "required"


@dataclass(frozen=True)
class Run:
    """What `slalom eval` does inside. `device` is tcp:ADDRESS:PORT; protection must check what the device answers."""

    plan_file: Path
    device: str
    protection: str = "private"
    check: str = "preprocessed"
    rounds: int = 1
    batch_size: int = 8
    batches: int = 4
    threads: int = 4
    images: Path | None = None


@dataclass(frozen=True)
class Enclave:
    """The enclave itself. `size` in bytes; `product` and `version` are ISVPRODID and ISVSVN, 0..65535."""

    size: int
    product: int = 0
    version: int = 0
    avx512: Avx512 = Avx512.UNSPECIFIED


def make_manifest(run: Run, enclave: Enclave, installation: Installation) -> dict[str, Any]:
    """The checked manifest. The same arguments give the same document.

    Raises ApiMisuse for arguments that make no enclave, ModelError for paths that cannot stand in a manifest.
    """
    _require_numeric(run.device)
    document = {
        "loader": _loader(run, installation),
        "libos": {"entrypoint": installation.python},
        "sys": {"stack": {"size": "2M"}, "disallow_subprocesses": True},
        "fs": {"root": {"type": "tmpfs"}, "mounts": _mounts(run, installation)},
        "sgx": _sgx(run, enclave, installation),
    }
    check_manifest(document)
    return document


def _require_numeric(device: str) -> None:
    """A name would be resolved by the host's own answers, and by files that are not measured."""
    match = _ADDRESS.fullmatch(device)
    try:
        if match and int(match[2]) < 1 << 16:
            ipaddress.ip_address(match[1].strip("[]"))
            return
    except ValueError:
        pass
    raise ApiMisuse(f"{device!r:.80} is no device for an enclave", hint="tcp:ADDRESS:PORT with a numeric address")


def _loader(run: Run, installation: Installation) -> dict[str, Any]:
    words = [installation.python, "-I", "-B", "-m", "slalom.cli", "eval", str(run.plan_file)]
    words += ["--device", run.device, "--bulk", "shm", "--on-failure", "fail"]
    words += ["--protection", run.protection, "--check", run.check, "--rounds", str(run.rounds)]
    words += ["--batch-size", str(run.batch_size), "--batches", str(run.batches), "--threads", str(run.threads)]
    words += [] if run.images is None else ["--images", str(run.images)]
    return {
        "log_level": "error",
        "entrypoint": _entry(installation.libos),
        "argv": [*words, "--json"],
        "env": _environment(installation),
    }


def _environment(installation: Installation) -> dict[str, str]:
    """Fixed values: the host's environment does not enter."""
    folders = ("/lib", *installation.library_folders)
    if any(":" in folder for folder in folders):
        raise ModelError("a folder of shared libraries has a colon in its name", hint="install Python elsewhere")
    return {
        "LD_LIBRARY_PATH": ":".join(folders),
        "LC_ALL": "C.UTF-8",
        "HOME": "/tmp",
        "OPENBLAS_NUM_THREADS": "1",  # its threads would need slots of their own
        "MALLOC_ARENA_MAX": "1",  # an arena a thread would reserve 64 MiB of the enclave each
    }


def _mounts(run: Run, installation: Installation) -> list[dict[str, str]]:
    """Gramine's C library at /lib, then each folder where it is on the host; what lies elsewhere, file by file."""
    folders = [*installation.library_folders, *installation.roots, *([] if run.images is None else [str(run.images)])]
    covered = [
        folder for folder in dict.fromkeys(folders) if not _is_within(folder, [f for f in folders if f != folder])
    ]
    inside = [*covered, installation.runtime]
    single = [file.path for file in installation.files if not _is_within(file.path, inside)]
    mounts = [{"type": "tmpfs", "path": "/tmp"}, {"path": "/lib", "uri": f"file:{installation.runtime}"}]
    mounts += [{"path": path, "uri": f"file:{path}"} for path in [*sorted(covered), *single]]
    return [*mounts, {"type": "untrusted_shm", "path": "/dev/shm", "uri": SHARED_MEMORY}]


def _is_within(path: str, folders: list[str]) -> bool:
    return any(PurePosixPath(path).is_relative_to(folder) for folder in folders)


def _sgx(run: Run, enclave: Enclave, installation: Installation) -> dict[str, Any]:
    return {
        "debug": False,
        "edmm_enable": False,
        "enclave_size": readable_enclave_size(enclave.size),
        "max_threads": run.threads + _SESSION_THREADS + _GRAMINE_THREADS,
        "isvprodid": enclave.product,
        "isvsvn": enclave.version,
        "remote_attestation": "dcap",
        "cpu_features": {"avx512": str(enclave.avx512)},
        "file_check_policy": "strict",
        "allowed_files": [SHARED_MEMORY],  # the regions, which the trusted side makes under names nobody can foresee
        "trusted_files": [_entry(file) for file in installation.files],
    }


def _entry(file: TrustedFile) -> dict[str, str]:
    return {"uri": f"file:{file.path}", "sha256": file.sha256}
