"""What a manifest must be. Keys and values that are not known here are refused: Gramine's defaults are not asked."""

from __future__ import annotations

import itertools
import posixpath
import re
from collections.abc import Callable, Mapping
from typing import Any

from slalom.errors import ApiMisuse, ModelError
from slalom.gramine.size import parse_enclave_size

SHARED_MEMORY = "dev:/dev/shm"
_REGION = re.compile(r"dev:/dev/shm/slalom-[A-Za-z0-9-]{1,64}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_ENVIRONMENT = ("LD_LIBRARY_PATH", "LC_ALL", "HOME", "OPENBLAS_NUM_THREADS", "MALLOC_ARENA_MAX")
_UNTRUSTED = ("/dev", "/proc", "/sys")
_MOST_THREADS = 1024
_START = ("-I", "-B", "-m", "slalom.cli", "eval")
_CHECKED = ("private", "verified")


def check_manifest(document: Mapping[str, Any]) -> None:
    """Raises ModelError, naming the key, for a manifest that gives the host any say: see decision 0015."""
    for refusal in (_refuse_insecure, _check_loader, _check_files, _check_mounts, _check_enclave):
        refusal(document)


# ---------------------------------------------------------------- keys


def _refuse_insecure(document: Mapping[str, Any]) -> None:
    _walk(document, "")
    _require_keys(document, "", ("loader", "libos", "sys", "fs", "sgx"))
    _require_keys(document["libos"], "libos", ("entrypoint",))
    _require_keys(document["sys"], "sys", ("stack", "disallow_subprocesses"))
    _require_keys(document["sys"]["stack"], "sys.stack", ("size",))
    _require(document["sys"]["disallow_subprocesses"] is True, "sys.disallow_subprocesses", "must be true")
    _require_text(document["libos"]["entrypoint"], "libos.entrypoint")
    _require_text(document["sys"]["stack"]["size"], "sys.stack.size")


def _walk(value: object, where: str) -> None:
    """Refuses by name, wherever they stand, what Gramine itself calls insecure, and what is not production."""
    if isinstance(value, list):
        for item in value:
            _walk(item, where)
    if not isinstance(value, Mapping):
        return
    for key, item in value.items():
        path = f"{where}.{key}".lstrip(".")
        for word in ("insecure__", "experimental__", "debug__"):
            _require(not str(key).startswith(word), path, "is refused")
        _require(key != "passthrough", path, "the host's environment does not enter")
        _walk(item, path)


def _require_keys(table: object, where: str, names: tuple[str, ...]) -> None:
    """Exactly these keys."""
    if not isinstance(table, Mapping):
        raise ModelError(f"manifest: {where} is no table")
    for key in table:
        _require(key in names, f"{where}.{key}".lstrip("."), "is refused")
    for name in names:
        _require(name in table, f"{where}.{name}".lstrip("."), "is missing")


def _require(holds: bool, where: str, why: str) -> None:
    if not holds:
        raise ModelError(f"manifest: {where} {why}")


def _require_text(value: object, where: str) -> str:
    if not isinstance(value, str):
        raise ModelError(f"manifest: {where} is no string")
    return value


def _require_list(value: object, where: str) -> list[Any]:
    if not isinstance(value, list):
        raise ModelError(f"manifest: {where} is no list")
    return value


def _require_path(value: object, where: str) -> str:
    """An absolute path without detours."""
    path = _require_text(value, where)
    plain = path.startswith("/") and not path.startswith("//") and posixpath.normpath(path) == path
    _require(plain, where, f"{path!r:.120} is no plain absolute path")
    return path


# ---------------------------------------------------------------- loader


def _check_loader(document: Mapping[str, Any]) -> None:
    loader = document["loader"]
    _require_keys(loader, "loader", ("log_level", "entrypoint", "argv", "env"))
    _require(loader["log_level"] == "error", "loader.log_level", "must be error: other levels show data")
    _check_entry(loader["entrypoint"], "loader.entrypoint")
    argv = [_require_text(word, "loader.argv") for word in _require_list(loader["argv"], "loader.argv")]
    fixed = (document["libos"]["entrypoint"], *_START)
    _require(
        tuple(argv[: len(fixed)]) == fixed, "loader.argv", "must start with the interpreter, -I -B -m slalom.cli eval"
    )
    named = [word for word in argv if word.startswith("--protection")]  # --protection=WORD, said later, would win
    chosen = [value for flag, value in itertools.pairwise(argv) if flag == "--protection"]
    sound = named == ["--protection"] and len(chosen) == 1 and chosen[0] in _CHECKED
    _require(sound, "loader.argv", "must name one protection with checks")
    _check_environment(loader["env"])


def _check_environment(environment: object) -> None:
    if not isinstance(environment, Mapping):
        raise ModelError("manifest: loader.env is no table")
    for name, value in environment.items():
        _require(name in _ENVIRONMENT, f"loader.env.{name}", "is refused")
        _require_text(value, f"loader.env.{name}")
    for folder in environment.get("LD_LIBRARY_PATH", "/lib").split(":"):
        _require_path(folder, "loader.env.LD_LIBRARY_PATH")
        _require(not _in_untrusted(folder), "loader.env.LD_LIBRARY_PATH", f"{folder!r:.120} is the host's to fill")


def _in_untrusted(path: str) -> bool:
    return path == "/" or any(path == folder or path.startswith(f"{folder}/") for folder in _UNTRUSTED)


# ---------------------------------------------------------------- files and mounts


def _check_files(document: Mapping[str, Any]) -> None:
    sgx = document["sgx"]
    _require(isinstance(sgx, Mapping), "sgx", "is no table")
    _require(sgx.get("file_check_policy") == "strict", "sgx.file_check_policy", "must be strict")
    for uri in _require_list(sgx.get("allowed_files"), "sgx.allowed_files"):
        is_region = isinstance(uri, str) and (uri == SHARED_MEMORY or _REGION.fullmatch(uri))
        _require(bool(is_region), "sgx.allowed_files", f"{uri!r:.120} is neither {SHARED_MEMORY} nor a region in it")
    paths = [
        _check_entry(entry, "sgx.trusted_files")
        for entry in _require_list(sgx.get("trusted_files"), "sgx.trusted_files")
    ]
    _require(len(set(paths)) == len(paths), "sgx.trusted_files", "names a file twice")
    interpreter = document["libos"]["entrypoint"]
    _require(interpreter in paths, "libos.entrypoint", "is no trusted file")


def _check_entry(entry: object, where: str) -> str:
    """The path of a file with its hash; a folder, or a file that the signer would hash later, is refused."""
    if not isinstance(entry, Mapping):
        raise ModelError(f"manifest: {where} {entry!r:.120} has no sha256")
    _require_keys(entry, where, ("uri", "sha256"))
    path = _require_text(entry["uri"], where)
    _require(path.startswith("file:"), where, f"{path!r:.120} is no file:")
    _require(bool(_SHA256.fullmatch(_require_text(entry["sha256"], where))), where, "has a sha256 that is none")
    return _require_path(path.removeprefix("file:"), where)


def _check_mounts(document: Mapping[str, Any]) -> None:
    _require_keys(document["fs"], "fs", ("root", "mounts"))
    _require(document["fs"]["root"] == {"type": "tmpfs"}, "fs.root", "must be an empty tmpfs")
    paths = [_check_mount(mount) for mount in _require_list(document["fs"]["mounts"], "fs.mounts")]
    _require(len(set(paths)) == len(paths), "fs.mounts", "names a place twice")


def _check_mount(mount: object) -> str:
    if not isinstance(mount, Mapping):
        raise ModelError("manifest: fs.mounts holds what is no table")
    path = _require_path(mount.get("path"), "fs.mounts")
    kind = mount.get("type", "chroot")
    if kind == "tmpfs":
        _require(mount == {"type": "tmpfs", "path": "/tmp"}, "fs.mounts", "has a tmpfs that is not /tmp")
    elif kind == "untrusted_shm":
        expected = {"type": "untrusted_shm", "path": "/dev/shm", "uri": SHARED_MEMORY}
        _require(mount == expected, "fs.mounts", f"has shared memory other than {SHARED_MEMORY}")
    else:
        _require(kind == "chroot" and "type" not in mount, "fs.mounts", f"has type {kind!r:.40}")
        _require_keys(mount, "fs.mounts", ("path", "uri"))
        uri = _require_text(mount["uri"], "fs.mounts")
        _require(uri.startswith("file:"), "fs.mounts", f"{uri!r:.120} is no file:")
        _require_path(uri.removeprefix("file:"), "fs.mounts")
        _require(not _in_untrusted(path), "fs.mounts", f"{path!r:.120} may not be covered by the host's files")
    return path


# ---------------------------------------------------------------- the enclave


def _is_number(least: int, most: int) -> Callable[[object], bool]:
    return lambda value: isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def _is_size(text: str) -> bool:
    try:
        return parse_enclave_size(text) > 0
    except ApiMisuse:
        return False


_ENCLAVE: Mapping[str, Callable[[object], bool]] = {
    "debug": lambda value: value is False,
    "edmm_enable": lambda value: value is False,
    "enclave_size": lambda value: isinstance(value, str) and _is_size(value),
    "max_threads": _is_number(5, _MOST_THREADS),
    "isvprodid": _is_number(0, 0xFFFF),
    "isvsvn": _is_number(0, 0xFFFF),
    "remote_attestation": lambda value: value == "dcap",
    "cpu_features": lambda value: value in ({"avx512": "unspecified"}, {"avx512": "required"}),
}


def _check_enclave(document: Mapping[str, Any]) -> None:
    sgx = document["sgx"]
    _require_keys(sgx, "sgx", (*_ENCLAVE, "file_check_policy", "allowed_files", "trusted_files"))
    for name, is_right in _ENCLAVE.items():
        _require(is_right(sgx[name]), f"sgx.{name}", f"must not be {sgx[name]!r:.60}")
