"""Host memory that the GPU reads and writes by itself: pinned arrays, and shared memory registered as such."""

from __future__ import annotations

import mmap
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from slalom.errors import ApiMisuse, DeviceError

Host = NDArray[Any]


def register_host(array: Host) -> None:
    """Pins the memory of an array, for instance a whole shared-memory region, until `unregister_host`.

    Slices of it then take part in copies that overlap with the GPU's work. Raises ApiMisuse for an array with gaps,
    DeviceError where CUDA refuses (memory registered before, or more than the system lets a process lock).
    """
    if not array.flags.c_contiguous:
        raise ApiMisuse("only contiguous memory can be registered")
    _check(int(torch.cuda.cudart().cudaHostRegister(array.ctypes.data, array.nbytes, 0)), "register")


def unregister_host(array: Host) -> None:
    """Undoes `register_host`, for the same array, once no copy uses it. Raises DeviceError where CUDA refuses."""
    _check(int(torch.cuda.cudart().cudaHostUnregister(array.ctypes.data)), "unregister")


@cache
def can_register() -> bool:
    """Whether CUDA pins shared memory here at all; tried once a process, with one page."""
    page = np.frombuffer(mmap.mmap(-1, mmap.PAGESIZE), np.uint8)
    try:
        register_host(page)
        unregister_host(page)
    except DeviceError:
        return False
    return True


def pinned_array(shape: tuple[int, ...], dtype: type[np.generic]) -> Host:
    """A fresh pinned array, not initialised; torch keeps freed ones for reuse."""
    size = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
    array: Host = torch.empty(size, dtype=torch.uint8, pin_memory=True).numpy().view(dtype).reshape(shape)
    return array


def pinned_copy(array: Host) -> Host:
    """The array as it is where its memory is pinned and contiguous, else a pinned copy."""
    if array.flags.c_contiguous and array.flags.writeable and array.size > 0 and as_host_tensor(array).is_pinned():
        return array
    copy = pinned_array(array.shape, array.dtype.type)
    np.copyto(copy, array, casting="no")
    return copy


def as_host_tensor(array: Host) -> Tensor:
    """The same memory as a tensor. Raises ApiMisuse for an array that is not contiguous and writable."""
    if not (array.flags.c_contiguous and array.flags.writeable):
        raise ApiMisuse("the device copies contiguous, writable arrays")
    return torch.from_numpy(array)


def _check(code: int, verb: str) -> None:
    if code != 0:
        raise DeviceError(f"CUDA could not {verb} host memory: error {code}")
