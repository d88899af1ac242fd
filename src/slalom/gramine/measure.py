"""What the enclave may open: found by a rehearsal in the interpreter that will run inside, and hashed file by file."""

from __future__ import annotations

import hashlib
import json
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from slalom.errors import ModelError

LIBOS = "libsysdb.so"
RUNTIME = "runtime/glibc"
_LOADER = "ld-linux-x86-64.so.2"
_REHEARSAL_SECONDS = 900


@dataclass(frozen=True, order=True)
class TrustedFile:
    """An absolute path as the program inside opens it, the SHA-256 of the content in hex, the size in bytes."""

    path: str
    sha256: str
    size: int


@dataclass(frozen=True)
class Installation:
    """Everything measured: `files` sorted by path; `roots`, folders of modules; `library_folders`, of the system's
    shared libraries; `runtime`, Gramine's C library; `libos`, what its loader starts."""

    python: str
    files: tuple[TrustedFile, ...]
    roots: tuple[str, ...]
    library_folders: tuple[str, ...]
    runtime: str
    libos: TrustedFile

    @property
    def size(self) -> int:
        """Bytes to hash when the enclave opens everything once."""
        return sum(file.size for file in self.files)


def measure_installation(python: Path, gramine: Path, plan_file: Path, images: Path | None = None) -> Installation:
    """Rehearses the trusted side with `python` on `plan_file` and hashes all that it opened.

    `python` is not resolved: a virtual environment is known by its own path. `gramine` is the folder that holds
    libsysdb.so. `images`, a folder of photos, is trusted whole. Raises ModelError where Gramine is not there, where the
    rehearsal fails, or where a file cannot be read.
    """
    runtime = gramine / RUNTIME
    if not (gramine / LIBOS).is_file() or not runtime.is_dir():
        raise ModelError(
            f"no Gramine in {gramine}: no {LIBOS} or no {RUNTIME}", hint="install Gramine 1.9, or --gramine DIR"
        )
    found = _rehearse(python, plan_file, images)
    libraries = [_library(path, runtime) for path in found["libraries"]]
    photos = [] if images is None else [str(path) for path in images.iterdir() if path.is_file()]
    loader = str(runtime / _LOADER)
    paths = {*found["files"], *libraries, str(python), str(plan_file), loader, *photos}
    folders = {str(Path(path).parent) for path in libraries if not _below(path, [*found["roots"], str(runtime)])}
    return Installation(
        python=str(python),
        files=tuple(measure_file(path) for path in sorted(paths)),
        roots=tuple(dict.fromkeys(found["roots"])),
        library_folders=tuple(sorted(folders)),
        runtime=str(runtime),
        libos=measure_file(str(gramine / LIBOS)),
    )


def measure_file(path: str) -> TrustedFile:
    """The hash and size of a file. Raises ModelError where it cannot be read."""
    try:
        with Path(path).open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            return TrustedFile(path, sha256, file.tell())
    except OSError as error:
        raise ModelError(f"cannot measure {path}: {error.strerror}") from error


def _library(path: str, runtime: Path) -> str:
    """The C library and its parts are Gramine's own; every other library stays where it is."""
    own = runtime / Path(path).name
    return str(own) if own.is_file() else path


def _below(path: str, folders: Sequence[str]) -> bool:
    return any(Path(path).is_relative_to(folder) for folder in folders)


def _rehearse(python: Path, plan_file: Path, images: Path | None) -> dict[str, list[str]]:
    """Runs the rehearsal with nothing of this process's environment."""
    words = [str(python), "-I", "-B", "-m", "slalom.gramine.rehearsal", str(plan_file)]
    words += [] if images is None else [str(images)]
    try:
        done = subprocess.run(
            words, env={"LC_ALL": "C.UTF-8"}, cwd="/", capture_output=True, text=True, check=False,
            timeout=_REHEARSAL_SECONDS, stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except OSError as error:
        raise ModelError(f"cannot run {python}: {error.strerror}", hint="--python FILE names another") from error
    except subprocess.TimeoutExpired as error:
        raise ModelError(f"the rehearsal took more than {_REHEARSAL_SECONDS} seconds") from error
    if done.returncode != 0:
        reason = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise ModelError(
            f"the trusted side does not run with {python}: {reason:.300}",
            hint="install slalom with its cli extra there, or --python FILE",
        )
    return _decode(done.stdout)


def _decode(text: str) -> dict[str, list[str]]:
    try:
        found = json.loads(text)
        return {key: [str(path) for path in found[key]] for key in ("files", "libraries", "roots")}
    except (ValueError, KeyError, TypeError) as error:
        raise ModelError("the rehearsal gave no list of files") from error
