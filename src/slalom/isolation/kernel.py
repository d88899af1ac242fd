"""The system calls that the standard library lacks. Each raises OSError where the kernel refuses."""

from __future__ import annotations

import ctypes
import os

PR_SET_PDEATHSIG = 1
PR_GET_DUMPABLE = 3
PR_SET_DUMPABLE = 4
PR_GET_SECCOMP = 21
PR_SET_NO_NEW_PRIVS = 38
PR_GET_NO_NEW_PRIVS = 39

_MEMFD_SECRET = 447  # the same on every architecture, as all numbers above 423
_PROT_READ_WRITE = 1 | 2
_MAP_SHARED = 0x01
_MREMAP_FIXED = 1 | 2  # and may move, without which it means nothing
_FAILED = ctypes.c_void_p(-1).value

_libc = ctypes.CDLL(None, use_errno=True)
_libc.prctl.argtypes = (ctypes.c_int, *(ctypes.c_ulong,) * 4)
_libc.syscall.restype = ctypes.c_long
_libc.mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, *(ctypes.c_int,) * 3, ctypes.c_long)
_libc.mmap.restype = ctypes.c_void_p
_libc.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
_libc.mremap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t, ctypes.c_int, ctypes.c_void_p)
_libc.mremap.restype = ctypes.c_void_p
_libc.mlock.argtypes = (ctypes.c_void_p, ctypes.c_size_t)


def prctl(option: int, value: int = 0) -> int:
    """What prctl(2) gives."""
    return _checked(int(_libc.prctl(option, value, 0, 0, 0)))


def open_secret_memory() -> int:
    """A descriptor of memfd_secret(2): memory that the kernel itself takes out of its map. Closed on exec."""
    return _checked(int(_libc.syscall(ctypes.c_long(_MEMFD_SECRET), ctypes.c_uint(os.O_CLOEXEC))))


def map_over(address: int, size: int, descriptor: int) -> None:
    """Puts a descriptor's memory, shared, in the place of an existing mapping of the caller's, of whole pages.

    Where it raises OSError, the existing mapping is still there. Raises MemoryError where it may not be.
    """
    # LOAD-BEARING: mapping over it at once would leave a hole where the limit on locked memory refuses the new one.
    fresh = _libc.mmap(None, size, _PROT_READ_WRITE, _MAP_SHARED, descriptor, 0)
    if fresh == _FAILED:
        raise _last_error()
    if _libc.mremap(fresh, size, size, _MREMAP_FIXED, address) == _FAILED:
        _libc.munmap(fresh, size)
        raise MemoryError("the kernel has no memory left to move a mapping")


def lock(address: int, size: int) -> None:
    """Keeps memory from being swapped out."""
    _checked(int(_libc.mlock(address, size)))


def _checked(result: int) -> int:
    if result < 0:
        raise _last_error()
    return result


def _last_error() -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number))
