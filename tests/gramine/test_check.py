"""Every way in which a manifest could give the host a say is refused by name."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from slalom.errors import ModelError
from slalom.gramine import check_manifest
from tests.gramine.enclaves import SOUND, changed

HASH = "0" * 64
PYTHON = {"uri": "file:/venv/bin/python", "sha256": HASH}
START = ["/venv/bin/python", "-I", "-B", "-m", "slalom.cli", "eval"]
SHM = {"type": "untrusted_shm", "path": "/dev/shm", "uri": "dev:/dev/shm"}

ATTACKS: list[tuple[str, Any, str]] = [
    # what Gramine itself calls insecure, wherever it stands
    ("loader/insecure__use_cmdline_argv", True, "loader.insecure__use_cmdline_argv is refused"),
    ("loader/insecure__use_host_env", True, "loader.insecure__use_host_env is refused"),
    ("loader/insecure__disable_aslr", True, "loader.insecure__disable_aslr is refused"),
    ("sys/insecure__allow_eventfd", True, "sys.insecure__allow_eventfd is refused"),
    ("sgx/insecure__rpc_thread_num", 4, "sgx.insecure__rpc_thread_num is refused"),
    ("sgx/insecure__allow_memfaults_without_exinfo", True, "is refused"),
    ("fs/insecure__keys", {"default": "0" * 32}, "fs.insecure__keys is refused"),
    ("sys/experimental__enable_flock", True, "sys.experimental__enable_flock is refused"),
    ("sys/debug__mock_syscalls", [{"name": "getrandom"}], "sys.debug__mock_syscalls is refused"),
    # an enclave that can be read, or that tells
    ("sgx/debug", True, "sgx.debug"),
    ("sgx/debug", 0, "sgx.debug"),
    ("sgx/enable_stats", True, "sgx.enable_stats is refused"),
    ("sgx/profile", {"enable": "all"}, "sgx.profile is refused"),
    ("sgx/vtune_profile", True, "sgx.vtune_profile is refused"),
    ("sgx/use_exinfo", True, "sgx.use_exinfo is refused"),
    ("loader/log_level", "trace", "loader.log_level"),
    ("loader/log_file", "/out/log", "loader.log_file is refused"),
    # arguments and environment from the host
    ("loader/argv_src_file", "file:/argv", "loader.argv_src_file is refused"),
    ("loader/env_src_file", "file:/env", "loader.env_src_file is refused"),
    ("loader/argv", [*START[:1], *START[2:], "--protection", "private"], "loader.argv"),  # without -I
    ("loader/argv", ["/bin/sh", *START[1:], "--protection", "private"], "loader.argv"),
    ("loader/argv", [*START, "p", "--protection", "device"], "one protection with checks"),
    ("loader/argv", [*START, "p", "--protection", "blinded"], "one protection with checks"),
    ("loader/argv", [*START, "p", "--protection", "private", "--protection", "device"], "one protection"),
    ("loader/argv", [*START, "p", "--protection=device"], "one protection with checks"),
    ("loader/argv", [*START, "p", "--protection", "private", "--protection=device"], "one protection"),
    ("loader/argv", "python3", "loader.argv is no list"),
    ("loader/argv", [*START, 1], "loader.argv is no string"),
    ("loader/env/LD_PRELOAD", {"passthrough": True}, "passthrough"),
    ("loader/env/PYTHONPATH", {"passthrough": True}, "passthrough"),
    ("loader/env/OMP_NUM_THREADS", {"passthrough": True}, "passthrough"),
    ("loader/env/HOME", {"passthrough": True}, "passthrough"),
    ("loader/env/LD_PRELOAD", "/venv/evil.so", "loader.env.LD_PRELOAD is refused"),
    ("loader/env/PYTHONSTARTUP", "/x.py", "loader.env.PYTHONSTARTUP is refused"),
    ("loader/env/LD_LIBRARY_PATH", "/lib::/usr", "no plain absolute path"),
    ("loader/env/LD_LIBRARY_PATH", "/lib:/dev/shm", "the host's to fill"),
    ("loader/env", [], "loader.env is no table"),
    # files that nobody measured
    ("sgx/file_check_policy", "allow_all_but_log", "sgx.file_check_policy must be strict"),
    ("sgx/allowed_files/+", "file:/etc/", "sgx.allowed_files"),
    ("sgx/allowed_files/+", "file:/venv/lib/", "sgx.allowed_files"),
    ("sgx/allowed_files/+", "dev:/dev/shm/../sda", "sgx.allowed_files"),
    ("sgx/allowed_files/+", "dev:/dev/nvidia0", "sgx.allowed_files"),
    ("sgx/allowed_files/+", 7, "sgx.allowed_files"),
    ("sgx/trusted_files/+", "file:/usr/lib/", "has no sha256"),
    ("sgx/trusted_files/+", {"uri": "file:/x"}, "sgx.trusted_files.sha256 is missing"),
    ("sgx/trusted_files/+", {"uri": "file:/x/", "sha256": HASH}, "no plain absolute path"),
    ("sgx/trusted_files/+", {"uri": "file:/x/../y", "sha256": HASH}, "no plain absolute path"),
    ("sgx/trusted_files/+", {"uri": "file:x", "sha256": HASH}, "no plain absolute path"),
    ("sgx/trusted_files/+", {"uri": "dev:/dev/x", "sha256": HASH}, "is no file:"),
    ("sgx/trusted_files/+", {"uri": "file:/x", "sha256": "0" * 63}, "has a sha256 that is none"),
    ("sgx/trusted_files/+", {**PYTHON, "sha256": "1" * 64}, "names a file twice"),
    ("sgx/trusted_files", [], "libos.entrypoint is no trusted file"),
    ("loader/entrypoint", "file:/gramine/libsysdb.so", "has no sha256"),
    ("libos/entrypoint", "/bin/sh", "loader.argv"),
    # places of the host
    ("fs/root", {"type": "chroot", "uri": "file:/"}, "fs.root"),
    ("fs/start_dir", "/home", "fs.start_dir is refused"),
    ("fs/mounts/+", {"path": "/", "uri": "file:/"}, "may not be covered"),
    ("fs/mounts/+", {"path": "/dev/attestation", "uri": "file:/fake"}, "may not be covered"),
    ("fs/mounts/+", {"path": "/proc", "uri": "file:/fake"}, "may not be covered"),
    ("fs/mounts/+", {"path": "/lib/../dev", "uri": "file:/x"}, "no plain absolute path"),
    ("fs/mounts/+", {"path": "/x", "uri": "dev:/dev/mem"}, "is no file:"),
    ("fs/mounts/+", {"type": "tmpfs", "path": "/venv"}, "fs.mounts"),
    ("fs/mounts/+", {"type": "encrypted", "path": "/k", "uri": "file:/k", "key_name": "k"}, "has type 'encrypted'"),
    ("fs/mounts/+", {"type": "untrusted_shm", "path": "/venv", "uri": "dev:/dev/shm"}, "shared memory other than"),
    ("fs/mounts/+", {"type": "untrusted_shm", "path": "/dev/shm", "uri": "dev:/dev"}, "shared memory other than"),
    ("fs/mounts/+", SHM, "names a place twice"),
    # the enclave
    ("sgx/edmm_enable", True, "sgx.edmm_enable"),
    ("sgx/enclave_size", "3G", "sgx.enclave_size"),
    ("sgx/enclave_size", 1024, "sgx.enclave_size"),
    ("sgx/max_threads", 4, "sgx.max_threads"),
    ("sgx/max_threads", True, "sgx.max_threads"),
    ("sgx/isvsvn", 65536, "sgx.isvsvn"),
    ("sgx/isvprodid", -1, "sgx.isvprodid"),
    ("sgx/remote_attestation", "none", "sgx.remote_attestation"),
    ("sgx/remote_attestation", "epid", "sgx.remote_attestation"),
    ("sgx/cpu_features", {"avx512": "disabled"}, "sgx.cpu_features"),
    ("sgx/seal_key", {"flags_mask": "0x0"}, "sgx.seal_key is refused"),
    ("sgx/trusted_files_cache_size", "1G", "sgx.trusted_files_cache_size is refused"),
    ("sys/disallow_subprocesses", False, "sys.disallow_subprocesses"),
    ("sys/enable_sigterm_injection", True, "sys.enable_sigterm_injection is refused"),
    ("sys/enable_extra_runtime_domain_names_conf", True, "is refused"),
    ("sys/allowed_ioctls", [{"request_code": 1}], "sys.allowed_ioctls is refused"),
    ("gpu", {}, "gpu is refused"),
]  # fmt: skip


def test_a_sound_manifest_is_accepted() -> None:
    check_manifest(SOUND)


@pytest.mark.parametrize(
    ("path", "value", "words"), ATTACKS, ids=[f"{path}={value!r:.50}" for path, value, _ in ATTACKS]
)
def test_refused(path: str, value: Any, words: str) -> None:
    with pytest.raises(ModelError) as refusal:
        check_manifest(changed(path, value))
    assert words in str(refusal.value)
    assert str(refusal.value).startswith("manifest: ")


KEYS = [(table, key) for table, entries in SOUND.items() for key in entries]


@pytest.mark.parametrize(("table", "key"), KEYS)
@pytest.mark.parametrize("value", [None, 3, [], {}, "x"])
def test_no_wrong_type_is_a_crash_or_is_believed(table: str, key: str, value: Any) -> None:
    """Except where the type is right: an empty environment, no allowed files, another interpreter or stack."""
    if (key, value) in [
        ("env", {}),
        ("allowed_files", []),
        ("mounts", []),
        ("size", "x"),
        ("isvsvn", 3),
        ("isvprodid", 3),
    ]:
        return
    with pytest.raises(ModelError):
        check_manifest(changed(f"{table}/{key}", value))


@pytest.mark.parametrize(("table", "key"), KEYS)
def test_no_default_of_gramine_is_asked(table: str, key: str) -> None:
    document = copy.deepcopy(SOUND)
    del document[table][key]
    with pytest.raises(ModelError, match=key):
        check_manifest(document)


@pytest.mark.parametrize("table", list(SOUND))
def test_every_table_is_needed(table: str) -> None:
    for value in (None, [], 5):
        with pytest.raises(ModelError):
            check_manifest({**SOUND, table: value})
    with pytest.raises(ModelError, match=f"{table} is missing"):
        check_manifest({name: SOUND[name] for name in SOUND if name != table})
