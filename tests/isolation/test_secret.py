"""Secret memory: who can read it, what is left of it, and what it falls back to."""

from __future__ import annotations

import ctypes
import gc
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from slalom.errors import ApiMisuse
from slalom.isolation import kernel
from slalom.isolation.secret import SecretMemory
from tests.isolation.attacks import SECRET, read_memory, read_proc_mem
from tests.isolation.machine import ENVIRONMENT, OFFERED, run

KINDS = ["memfd_secret", "locked memory", "plain memory"]


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each kind in turn, by taking from the kernel what the better kinds need."""
    if request.param == "memfd_secret" and not OFFERED.memfd_secret:
        pytest.skip("this kernel has no memfd_secret")
    if request.param != "memfd_secret":
        monkeypatch.setattr(kernel, "open_secret_memory", refuse)
    if request.param == "plain memory":
        monkeypatch.setattr(kernel, "lock", refuse)
    return str(request.param)


def refuse(*_: object) -> int:
    raise OSError(38, "refused")


def filled(size: int = len(SECRET)) -> SecretMemory:
    memory = SecretMemory(size)
    memory.buffer[: len(SECRET)] = SECRET
    return memory


def address_of(memory: SecretMemory) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(memory.buffer))


@pytest.mark.parametrize("size", [1, 16, 32, 4095, 4096, 4097, 1 << 20])
def test_it_is_zero_writable_and_of_its_size(kind: str, size: int) -> None:
    memory = SecretMemory(size)
    assert memory.kind == kind
    assert bytes(memory.buffer) == bytes(size)
    memory.buffer[:] = b"\xff" * size
    assert bytes(memory.buffer) == b"\xff" * size
    memory.wipe()


BEYOND = """
import ctypes, os, resource
from slalom.isolation.secret import SecretMemory
resource.setrlimit(resource.RLIMIT_MEMLOCK, (1 << 16, 1 << 16))
if os.geteuid() == 0:
    os.setgid(65534); os.setuid(65534)  # root has no limit
memories = [SecretMemory(size) for size in (32, 1 << 20)]
for memory in memories:
    memory.buffer[:] = b"k" * len(memory.buffer)
    print(memory.kind)
    memory.wipe()
"""


def test_beyond_the_limit_on_locked_memory_it_is_plain_and_whole() -> None:
    ended = run(BEYOND)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.splitlines()[1] == "plain memory"


@pytest.mark.parametrize("size", [0, -1, (1 << 30) + 1])
def test_other_sizes_are_refused(size: int) -> None:
    with pytest.raises(ApiMisuse, match="has no meaning"):
        SecretMemory(size)


def test_wiping_overwrites_and_ends_it(kind: str) -> None:
    memory = filled()
    held = memory.buffer[:4]
    memory.wipe()
    memory.wipe()
    assert bytes(held) == bytes(4)  # a view still held reads zeros, and is not a hole in memory
    with pytest.raises(ApiMisuse, match="was wiped"):
        _ = memory.buffer


def test_it_is_unmapped(kind: str) -> None:
    memory = filled()
    start = f"{address_of(memory):x}-"
    assert start in mapped()
    memory.wipe()
    assert start not in mapped()


def test_dropping_it_wipes_it(kind: str) -> None:
    memory = filled()
    held = memory.buffer[:4]
    del memory
    gc.collect()
    assert bytes(held) == bytes(4)


def test_it_is_wiped_when_the_interpreter_ends() -> None:
    code = """
import atexit
from slalom.isolation.secret import SecretMemory
held = []
atexit.register(lambda: print(bytes(held[0])))  # registered before the first finalizer, and so runs after it
memory = SecretMemory(4)
memory.buffer[:] = b"keys"
held.append(memory.buffer[:])
"""
    assert run(code).stdout == f"{bytes(4)!r}\n"


READ_BY_CHILD = """
import os, sys
from slalom.isolation import kernel
from slalom.isolation.secret import SecretMemory
from slalom.errors import PrivacyError
def refuse(*_): raise OSError(38, "refused")
if sys.argv[1] != "memfd_secret": kernel.open_secret_memory = refuse
if sys.argv[1] == "plain memory": kernel.lock = refuse
if sys.argv[2] == "unprotected": kernel_view = memoryview(bytearray(b"keys"))
memory = SecretMemory(4)
memory.buffer[:] = b"keys"
view = memory.buffer[:] if sys.argv[2] == "held" else kernel_view if sys.argv[2] == "unprotected" else None
child = os.fork()
if child == 0:
    if view is None:
        try: memory.buffer
        except PrivacyError as error: print(error, flush=True)
        memory.wipe()
        sys.exit(0)
    os.write(1, bytes(view)); os._exit(0)
status = os.waitpid(child, 0)[1]
print(os.waitstatus_to_exitcode(status), bytes(memory.buffer))
"""


def test_a_forked_child_cannot_read_it(kind: str) -> None:
    asked = run(READ_BY_CHILD, kind, "asked").stdout
    assert asked == "secret memory does not cross a fork\n0 b'keys'\n"
    assert run(READ_BY_CHILD, kind, "held").stdout == f"{-signal.SIGSEGV} b'keys'\n"
    assert run(READ_BY_CHILD, kind, "unprotected").stdout == "keys0 b'keys'\n"


@pytest.mark.parametrize("attack", [read_memory, read_proc_mem], ids=lambda attack: attack.__name__)
def test_another_process_cannot_read_memfd_secret_though_it_is_unconfined(attack: Callable[..., bytes]) -> None:
    if not OFFERED.memfd_secret:
        pytest.skip("this kernel has no memfd_secret")
    memory, plain = filled(), ctypes.create_string_buffer(SECRET)
    if read_by_another(attack, ctypes.addressof(plain)) != SECRET.decode():
        pytest.skip("this machine keeps processes from reading their parents")
    assert read_by_another(attack, address_of(memory)) == "refused"
    memory.wipe()


def test_its_descriptor_is_not_left_open() -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    memory = filled()
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    memory.wipe()


def test_its_file_cannot_be_opened_again() -> None:
    """By the link that root finds under /proc for every mapping."""
    if not OFFERED.memfd_secret:
        pytest.skip("this kernel has no memfd_secret")
    memory = filled()
    line = next(line for line in mapped().splitlines() if line.startswith(f"{address_of(memory):x}-"))
    with pytest.raises(OSError):
        Path(f"/proc/self/map_files/{line.split()[0]}").open("rb").close()
    memory.wipe()


def read_by_another(attack: Callable[..., bytes], address: int) -> str:
    """What an unconfined process of the same user reads at an address of this one."""
    name = attack.__name__
    code = f"""
import sys
from tests.isolation.attacks import Target, {name}
try: print({name}(Target(int(sys.argv[1]), int(sys.argv[2]), 0, 0, 0, 0, "", 0, "")).decode())
except OSError: print("refused")
"""
    command = [sys.executable, "-P", "-c", code, str(os.getpid()), str(address)]
    return subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, check=True).stdout.strip()


def mapped() -> str:
    return Path("/proc/self/maps").read_text("utf-8")
