"""Memory for keys, which other processes, forked children, swap and core files do not get to see."""

from __future__ import annotations

import ctypes
import mmap
import os
import weakref
from contextlib import suppress

from slalom.errors import ApiMisuse, PrivacyError
from slalom.isolation import kernel


class SecretMemory:
    """Zeroed memory of `size` bytes, 1 to 2^30, that is overwritten when it is wiped, dropped, or the process ends.

    `kind` is `memfd_secret` where the kernel has it: it reads that for no other process, root's included (a tracer can
    still make this process read it: see `confine`). Otherwise it is `locked memory` (never swapped), or `plain memory`
    where the limit on locked memory is reached. No kind is in a forked child: touching it there ends the child, which
    is better than a key of zeros. Raises ApiMisuse for another size.
    """

    def __init__(self, size: int) -> None:
        if not 1 <= size <= 1 << 30:
            raise ApiMisuse(f"secret memory of {size} bytes has no meaning", hint="1 byte to 1 GiB")
        self._owner = os.getpid()
        self._pages = mmap.mmap(-1, -(-size // mmap.PAGESIZE) * mmap.PAGESIZE)
        self._kind = _protect(self._pages)
        self._view = memoryview(self._pages)[:size]
        self._finalizer = weakref.finalize(self, _wipe, self._pages, self._view, self._owner)

    @property
    def kind(self) -> str:
        """`memfd_secret`, `locked memory` or `plain memory`."""
        return self._kind

    @property
    def buffer(self) -> memoryview:
        """The bytes, writable. Raises ApiMisuse once wiped, and PrivacyError in a forked child."""
        if os.getpid() != self._owner:
            raise PrivacyError("secret memory does not cross a fork", hint="make a key of its own in every process")
        if not self._finalizer.alive:
            raise ApiMisuse("this secret memory was wiped")
        return self._view

    def wipe(self) -> None:
        """Overwrites and unmaps the memory; again does nothing. Views still held elsewhere read zeros."""
        self._finalizer()


def _protect(pages: mmap.mmap) -> str:
    """Makes a private mapping secret in the best way that this machine has, and names it."""
    address, size = ctypes.addressof(ctypes.c_char.from_buffer(pages)), len(pages)
    kind = "memfd_secret" if _replace_by_secret(address, size) else "locked memory"
    if kind != "memfd_secret":
        try:
            kernel.lock(address, size)
        except OSError:
            kind = "plain memory"
    # LOAD-BEARING: without it a forked child has the keys. Not MADV_WIPEONFORK, which gives the child zeros for a key.
    pages.madvise(mmap.MADV_DONTFORK)
    with suppress(OSError):  # the kernel never dumps secret memory, and may say so
        pages.madvise(mmap.MADV_DONTDUMP)
    return kind


def _replace_by_secret(address: int, size: int) -> bool:
    """Whether memfd_secret now lies where the mapping was. Nobody can take its descriptor, since it is closed."""
    try:
        descriptor = kernel.open_secret_memory()
    except OSError:
        return False
    try:
        os.ftruncate(descriptor, size)
        kernel.map_over(address, size, descriptor)
    except OSError:  # beyond the limit on locked memory
        return False
    finally:
        os.close(descriptor)
    return True


def _wipe(pages: mmap.mmap, view: memoryview, owner: int) -> None:
    if os.getpid() != owner:
        return  # a forked child has nothing there to overwrite
    pages[:] = bytes(len(pages))
    with suppress(BufferError):  # the caller still holds a view: unmapped when that goes
        view.release()
        pages.close()
