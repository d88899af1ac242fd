"""What a hijacked worker would try, each written to work where nothing is confined.

An attack takes the `Target`, and gives the proof that it worked, or raises OSError. Standard library alone.
"""

from __future__ import annotations

import ctypes
import fcntl
import mmap
import os
import platform
import resource
import signal
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

SECRET = b"the-parent-s-key"
LIBC = ctypes.CDLL(None, use_errno=True)
LIBC.syscall.restype = ctypes.c_long
X86 = platform.machine() == "x86_64"


@dataclass(frozen=True)
class Target:
    """The parent, as a worker could come to know it: more than it would."""

    parent: int  # process id
    address: int  # of SECRET in the parent's memory
    scratch: int  # of 16 bytes that may be overwritten there
    descriptor: int  # in the parent: a deleted file that holds SECRET
    leaked: int  # a copy of it that the worker inherits and should not have
    terminal: int  # one that the worker keeps
    folder: str  # not on the allow-list: holds `secret` and `socket`
    port: int  # 127.0.0.1, TCP
    abstract: str  # a listening Unix socket without a file


def syscall(number: int, *arguments: object) -> int:
    """A system call by number; raises OSError."""
    result = int(LIBC.syscall(ctypes.c_long(number), *arguments))
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def long(value: int) -> ctypes.c_long:
    return ctypes.c_long(value)


# ---------------------------------------------------------------- the parent's memory and state


class _Span(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("size", ctypes.c_size_t))


def _move_memory(call: Callable[..., int], target: Target, address: int, own: ctypes.Array[ctypes.c_char]) -> None:
    here, there = _Span(ctypes.addressof(own), len(SECRET)), _Span(address, len(SECRET))
    if call(target.parent, ctypes.byref(here), long(1), ctypes.byref(there), long(1), long(0)) < 0:
        raise OSError(ctypes.get_errno(), "refused")


def read_memory(target: Target) -> bytes:
    own = ctypes.create_string_buffer(len(SECRET))
    _move_memory(LIBC.process_vm_readv, target, target.address, own)
    return own.raw


def write_memory(target: Target) -> bytes:
    own = ctypes.create_string_buffer(b"overwritten here", 16)
    _move_memory(LIBC.process_vm_writev, target, target.scratch, own)
    return SECRET


def read_proc_mem(target: Target) -> bytes:
    with Path(f"/proc/{target.parent}/mem").open("rb", buffering=0) as memory:
        return os.pread(memory.fileno(), len(SECRET), target.address)


def read_environment(target: Target) -> bytes:
    return SECRET if b"PATH=" in Path(f"/proc/{target.parent}/environ").read_bytes() else b""


def read_map(target: Target) -> bytes:
    return SECRET if "[stack]" in Path(f"/proc/{target.parent}/maps").read_text() else b""


def reopen_descriptor(target: Target) -> bytes:
    with Path(f"/proc/{target.parent}/fd/{target.descriptor}").open("rb", buffering=0) as file:
        return os.pread(file.fileno(), len(SECRET), 0)


def copy_descriptor(target: Target) -> bytes:
    process = syscall(434, target.parent, 0)  # pidfd_open
    return os.pread(syscall(438, process, target.descriptor, 0), len(SECRET), 0)  # pidfd_getfd


def leaked_descriptor(target: Target) -> bytes:
    return os.pread(target.leaked, len(SECRET), 0)


def trace(target: Target) -> bytes:
    seize, detach = 0x4206, 17
    LIBC.ptrace.argtypes = (ctypes.c_long,) * 4
    if LIBC.ptrace(seize, target.parent, 0, 0) < 0:
        raise OSError(ctypes.get_errno(), "refused")
    LIBC.ptrace(detach, target.parent, 0, 0)
    return SECRET


def compare(target: Target) -> bytes:
    numbers = {"x86_64": 312, "aarch64": 272}
    syscall(numbers[platform.machine()], os.getpid(), target.parent, 1, long(0), long(0))  # kcmp, KCMP_VM
    return SECRET


def limit_parent(target: Target) -> bytes:
    now = resource.prlimit(target.parent, resource.RLIMIT_STACK)
    resource.prlimit(target.parent, resource.RLIMIT_STACK, now)
    return SECRET


# ---------------------------------------------------------------- signals to the parent: 0 asks for the right alone


def signal_parent(target: Target) -> bytes:
    os.kill(target.parent, 0)
    return SECRET


def signal_thread(target: Target) -> bytes:
    numbers = {"x86_64": 234, "aarch64": 131}
    syscall(numbers[platform.machine()], target.parent, target.parent, 0)  # tgkill
    return SECRET


def signal_by_descriptor(target: Target) -> bytes:
    syscall(424, syscall(434, target.parent, 0), 0, long(0), 0)  # pidfd_open, pidfd_send_signal
    return SECRET


def signal_by_ownership(target: Target) -> bytes:
    fcntl.fcntl(0, fcntl.F_SETOWN, target.parent)
    return SECRET


# ---------------------------------------------------------------- files


def read_file(target: Target) -> bytes:
    return Path(target.folder, "secret").read_bytes()


def list_folder(target: Target) -> bytes:
    return SECRET if "secret" in [path.name for path in Path(target.folder).iterdir()] else b""


def create_file(target: Target) -> bytes:
    Path(target.folder, "planted").write_bytes(b"x")
    return SECRET


def create_shared_memory(target: Target) -> bytes:
    path = Path(f"/dev/shm/slalom-test-{os.getpid()}")
    path.write_bytes(b"x")
    path.unlink()
    return SECRET


def overwrite_file(target: Target) -> bytes:
    Path(target.folder, "spare").write_bytes(b"x")
    return SECRET


def truncate_file(target: Target) -> bytes:
    os.truncate(Path(target.folder, "spare"), 0)
    return SECRET


def delete_file(target: Target) -> bytes:
    Path(target.folder, "spare").unlink()
    return SECRET


def rename_file(target: Target) -> bytes:
    Path(target.folder, "spare").rename(Path(target.folder, "moved"))
    return SECRET


def plant_library(target: Target) -> bytes:
    """Into the folder that the trusted process imports from."""
    path = Path(__file__).with_name("planted_by_a_test.py")
    path.write_bytes(b"")
    path.unlink()
    return SECRET


def change_mode(target: Target) -> bytes:
    Path(target.folder, "spare").chmod(0o666)
    return SECRET


def change_owner(target: Target) -> bytes:
    os.chown(Path(target.folder, "spare"), os.getuid(), os.getgid())
    return SECRET


def change_times(target: Target) -> bytes:
    os.utime(Path(target.folder, "spare"), (0, 0))
    return SECRET


def make_device(target: Target) -> bytes:
    os.mknod(Path(target.folder, "device"), 0o020600, os.makedev(1, 3))
    return SECRET


def watch_folder(target: Target) -> bytes:
    if LIBC.inotify_add_watch(LIBC.inotify_init1(0), target.folder.encode(), 0x100) < 0:
        raise OSError(ctypes.get_errno(), "refused")
    return SECRET


def mount(target: Target) -> bytes:
    if LIBC.mount(b"none", target.folder.encode() + b"/mount", b"tmpfs", 0, None) < 0:
        raise OSError(ctypes.get_errno(), "refused")
    LIBC.umount2(target.folder.encode() + b"/mount", 2)
    return SECRET


def change_root(target: Target) -> bytes:
    os.chroot("/")
    return SECRET


# ---------------------------------------------------------------- sockets


def connect_tcp(target: Target) -> bytes:
    with socket.create_connection(("127.0.0.1", target.port), timeout=5):
        return SECRET


def listen_tcp(target: Target) -> bytes:
    with socket.create_server(("127.0.0.1", 0)):
        return SECRET


def send_datagram(target: Target) -> bytes:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as out:
        out.sendto(b"x", ("127.0.0.1", target.port))
    return SECRET


def connect_unix(target: Target) -> bytes:
    with socket.socket(socket.AF_UNIX) as out:
        out.connect(f"{target.folder}/socket")
    return SECRET


def connect_abstract(target: Target) -> bytes:
    with socket.socket(socket.AF_UNIX) as out:
        out.connect(f"\0{target.abstract}")
    return SECRET


def pair_sockets(target: Target) -> bytes:
    for end in socket.socketpair():
        end.close()
    return SECRET


# ---------------------------------------------------------------- programs, processes, namespaces


def fork(target: Target) -> bytes:
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    return SECRET


def execute(target: Target) -> bytes:
    """The proof comes from the program."""
    os.execv("/bin/echo", ["echo", f"done {SECRET.decode()}"])


def spawn(target: Target) -> bytes:
    os.waitpid(os.posix_spawn("/bin/true", ["true"], {}), 0)
    return SECRET


def new_namespace(target: Target) -> bytes:
    if LIBC.unshare(0x04000000) < 0:  # of host names
        raise OSError(ctypes.get_errno(), "refused")
    return SECRET


def clone_by_structure(target: Target) -> bytes:
    """clone3, whose arguments a filter cannot read. An impossible one reaches the kernel, or does not."""
    try:
        syscall(435, long(0), long(0))
    except OSError as error:
        if error.errno != 22:  # EINVAL
            raise
    return SECRET


def share_by_number(target: Target) -> bytes:
    segment = LIBC.shmget(0, 4096, 0o600)
    if segment < 0:
        raise OSError(ctypes.get_errno(), "refused")
    LIBC.shmctl(segment, 0, None)
    return SECRET


def ring(target: Target) -> bytes:
    os.close(syscall(425, 1, ctypes.create_string_buffer(120)))  # io_uring_setup
    return SECRET


# ---------------------------------------------------------------- undoing the confinement


def become_dumpable(target: Target) -> bytes:
    return _undo(4, 1)


def become_dumpable_in_disguise(target: Target) -> bytes:
    """The kernel reads 32 of the 64 bits that a careless rule compares."""
    return _undo(4 | 1 << 32, 1)


def outlive_parent(target: Target) -> bytes:
    return _undo(1, 0)


def _undo(option: int, value: int) -> bytes:
    number = {"x86_64": 157, "aarch64": 167}[platform.machine()]
    syscall(number, ctypes.c_ulong(option), long(value), long(0), long(0), long(0))
    return SECRET


def allow_core(target: Target) -> bytes:
    try:
        resource.setrlimit(resource.RLIMIT_CORE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    except ValueError as error:  # what Python makes of EPERM
        raise PermissionError(1, "refused") from error
    return SECRET


def type_into_terminal(target: Target) -> bytes:
    fcntl.ioctl(target.terminal, 0x5412, b"x")  # TIOCSTI
    return SECRET


def in_a_thread(attack: Callable[[], bytes]) -> bytes:
    """A thread of its own, since killing the thread that calls leaves the worker alive."""
    proofs: list[bytes] = []
    thread = threading.Thread(target=lambda: proofs.append(attack()), daemon=True)
    thread.start()
    thread.join(5)
    return b"".join(proofs)


def other_calls(target: Target) -> bytes:
    """getpid by the 32-bit way in, whose numbers are others: getpid's there is writev's here."""
    return in_a_thread(_call_in_32_bits)


def other_numbers(target: Target) -> bytes:
    """getpid by its x32 number; a kernel without x32 says so, and the process lives."""
    return in_a_thread(_call_by_x32)


def _call_in_32_bits() -> bytes:
    code = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    code.write(b"\xb8\x14\x00\x00\x00\xcd\x80\xc3")  # mov eax, 20; int 0x80; ret
    address = ctypes.addressof(ctypes.c_char.from_buffer(code))
    return SECRET if ctypes.CFUNCTYPE(ctypes.c_int)(address)() == os.getpid() else b""


def _call_by_x32() -> bytes:
    try:
        syscall(0x40000000 + 39)
    except OSError as error:
        if error.errno != 38:  # ENOSYS
            raise
    return SECRET


def crash(target: Target) -> bytes:
    """Whether a core was dumped is for who waits for this process to see."""
    for undo in (allow_core, become_dumpable):
        try:
            undo(target)
        except OSError:
            continue
    os.chdir(target.folder)
    signal.signal(signal.SIGABRT, signal.SIG_DFL)
    os.abort()


def attack(name: str) -> Callable[[Target], bytes]:
    """The attack of a name."""
    found: Callable[[Target], bytes] = globals()[name]
    return found
