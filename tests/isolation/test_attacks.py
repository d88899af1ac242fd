"""Every attack works where nothing is confined, and is refused by each protection that is said to refuse it."""

from __future__ import annotations

import ctypes
import os
import pty
import signal
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.isolation.attacks import SECRET, X86, Target
from tests.isolation.machine import ENVIRONMENT, needs_strict
from tests.isolation.worker import arguments

BOTH = ("landlock", "seccomp")
LANDLOCK, SECCOMP = ("landlock",), ("seccomp",)

# What refuses each attack when it stands alone. Beginning a confinement closes descriptors, which is counted as both.
REFUSED_BY = {
    "read_memory": BOTH, "write_memory": BOTH, "read_proc_mem": LANDLOCK, "read_environment": LANDLOCK,
    "read_map": LANDLOCK, "reopen_descriptor": LANDLOCK, "copy_descriptor": BOTH, "leaked_descriptor": BOTH,
    "trace": BOTH, "compare": BOTH, "limit_parent": SECCOMP,
    "signal_parent": BOTH, "signal_thread": BOTH, "signal_by_descriptor": BOTH, "signal_by_ownership": SECCOMP,
    "read_file": LANDLOCK, "list_folder": LANDLOCK, "create_file": LANDLOCK, "create_shared_memory": LANDLOCK,
    "overwrite_file": LANDLOCK, "truncate_file": LANDLOCK, "delete_file": LANDLOCK, "rename_file": LANDLOCK,
    "plant_library": LANDLOCK, "change_mode": SECCOMP, "change_owner": SECCOMP, "change_times": SECCOMP,
    "make_device": BOTH, "watch_folder": SECCOMP, "mount": BOTH, "change_root": SECCOMP,
    "connect_tcp": BOTH, "listen_tcp": BOTH, "send_datagram": SECCOMP, "connect_unix": SECCOMP,
    "connect_abstract": BOTH, "pair_sockets": SECCOMP,
    "fork": SECCOMP, "execute": BOTH, "spawn": BOTH, "new_namespace": SECCOMP, "clone_by_structure": SECCOMP,
    "share_by_number": SECCOMP, "ring": SECCOMP,
    "become_dumpable": SECCOMP, "become_dumpable_in_disguise": SECCOMP, "outlive_parent": SECCOMP,
    "allow_core": SECCOMP, "type_into_terminal": SECCOMP,
}  # fmt: skip

# A machine may forbid these to everybody, or to all but root: then there is nothing to show on it.
MAY_NOT_WORK = {
    "read_memory", "write_memory", "read_proc_mem", "reopen_descriptor", "copy_descriptor", "trace", "compare",
    "make_device", "mount", "change_root", "new_namespace", "ring", "allow_core", "type_into_terminal",
    "read_environment", "read_map",
}  # fmt: skip


@dataclass(frozen=True)
class Victim:
    """This process, with a secret in every place where a worker could look."""

    target: Target
    secret: ctypes.Array[ctypes.c_char]
    scratch: ctypes.Array[ctypes.c_char]

    def attacked(self, name: str, protection: str) -> subprocess.CompletedProcess[str]:
        """A worker that attacks, and how it ended."""
        kept = (self.target.leaked, self.target.terminal)
        return subprocess.run(arguments(name, protection, self.target), capture_output=True, text=True, timeout=60,
                              env=ENVIRONMENT, pass_fds=kept, stdin=subprocess.PIPE, check=False)  # fmt: skip


@pytest.fixture
def victim(tmp_path: Path) -> Iterator[Victim]:
    secret, scratch = ctypes.create_string_buffer(SECRET), ctypes.create_string_buffer(16)
    for name in ("secret", "spare"):
        (tmp_path / name).write_bytes(SECRET)
    (tmp_path / "mount").mkdir()
    hidden = os.memfd_create("hidden")
    os.write(hidden, SECRET)
    leaked = os.dup(hidden)
    leader, terminal = pty.openpty()
    unix, abstract = socket.socket(socket.AF_UNIX), socket.socket(socket.AF_UNIX)
    with socket.create_server(("127.0.0.1", 0)) as tcp, unix, abstract:
        unix.bind(str(tmp_path / "socket"))
        abstract.bind(f"\0slalom-{tmp_path}")
        unix.listen()
        abstract.listen()
        yield Victim(
            Target(os.getpid(), ctypes.addressof(secret), ctypes.addressof(scratch), hidden, leaked, terminal,
                   str(tmp_path), tcp.getsockname()[1], f"slalom-{tmp_path}"),
            secret, scratch,
        )  # fmt: skip
    for descriptor in (hidden, leaked, leader, terminal):
        os.close(descriptor)


def refused(ended: subprocess.CompletedProcess[str]) -> bool:
    """Whether the attack was refused, and nothing else went wrong."""
    return ended.returncode == 0 and ended.stdout.split() in (["refused", name] for name in REFUSALS)


REFUSALS = ("EPERM", "EACCES", "ENOSYS", "EBADF")


@needs_strict
@pytest.mark.parametrize("name", REFUSED_BY)
def test_it_works_without_isolation(name: str, victim: Victim) -> None:
    ended = victim.attacked(name, "off")
    if refused(ended) and name in MAY_NOT_WORK:
        pytest.skip(f"this machine refuses it to everybody: {ended.stdout.strip()}")
    assert ended.stdout == f"done {SECRET.decode()}\n", ended.stderr
    assert (victim.scratch.raw == b"overwritten here") == (name == "write_memory")


@needs_strict
@pytest.mark.parametrize(("name", "protection"), [(name, one) for name, by in REFUSED_BY.items() for one in by])
def test_each_protection_refuses_it_alone(name: str, protection: str, victim: Victim) -> None:
    ended = victim.attacked(name, protection)
    assert refused(ended), (ended.stdout, ended.stderr)


@needs_strict
@pytest.mark.parametrize("name", REFUSED_BY)
def test_it_is_refused_in_a_sealed_worker(name: str, victim: Victim) -> None:
    ended = victim.attacked(name, "strict")
    assert refused(ended), (ended.stdout, ended.stderr)
    assert victim.scratch.raw == bytes(16)
    assert (Path(victim.target.folder) / "spare").read_bytes() == SECRET
    assert not (Path(victim.target.folder) / "planted").exists()


@needs_strict
@pytest.mark.skipif(not X86, reason="only x86 has other ways into the kernel")
@pytest.mark.parametrize("name", ["other_calls", "other_numbers"])
def test_another_way_into_the_kernel_kills_the_worker(name: str, victim: Victim) -> None:
    without = victim.attacked(name, "off")
    if without.returncode == -signal.SIGSEGV:
        pytest.skip("this kernel has no 32-bit calls")
    assert without.stdout == f"done {SECRET.decode()}\n"
    assert victim.attacked(name, "strict").returncode == -signal.SIGSYS


@needs_strict
def test_a_crash_leaves_no_core(victim: Victim) -> None:
    ends = [crash_of(victim, protection) for protection in ("off", "strict")]
    assert [os.WTERMSIG(end) for end in ends] == [signal.SIGABRT] * 2
    assert not os.WCOREDUMP(ends[1])
    if not os.WCOREDUMP(ends[0]):
        pytest.skip("this machine dumps no cores")


def crash_of(victim: Victim, protection: str) -> int:
    """The wait status of a worker that asks for a core and aborts."""
    command = arguments("crash", protection, victim.target)
    return os.waitpid(os.posix_spawn(command[0], command, ENVIRONMENT), 0)[1]
