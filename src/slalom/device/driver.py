"""Calls of the CUDA driver that torch does not have: a stream waits for a word of memory, writes one, and copies rows
with gaps.

The words and the memory are the host's, registered with CUDA, where a host address is a device address too. By ctypes:
the library is there wherever torch finds a GPU, and a package for three calls would be one more to pin.
"""

from __future__ import annotations

import ctypes
from functools import cache

import torch

from slalom.errors import DeviceError

_HOST, _DEVICE = 1, 2  # CUmemorytype
_AT_LEAST, _DEFAULT = 0, 0  # CU_STREAM_WAIT_VALUE_GEQ, cyclic; CU_STREAM_WRITE_VALUE_DEFAULT, after all before it
_WORDS = 2**32


class _Rows(ctypes.Structure):
    """CUDA_MEMCPY2D."""

    _fields_ = (
        ("source_x", ctypes.c_size_t), ("source_y", ctypes.c_size_t), ("source_kind", ctypes.c_int),
        ("source_host", ctypes.c_void_p), ("source_device", ctypes.c_uint64), ("source_array", ctypes.c_void_p),
        ("source_pitch", ctypes.c_size_t),
        ("target_x", ctypes.c_size_t), ("target_y", ctypes.c_size_t), ("target_kind", ctypes.c_int),
        ("target_host", ctypes.c_void_p), ("target_device", ctypes.c_uint64), ("target_array", ctypes.c_void_p),
        ("target_pitch", ctypes.c_size_t),
        ("width", ctypes.c_size_t), ("height", ctypes.c_size_t),
    )  # fmt: skip


def wait_for_word(stream: torch.cuda.Stream, address: int, value: int) -> None:
    """Has a stream wait until the word at a host address has reached a value, counted modulo 2^32."""
    _check(_library().cuStreamWaitValue32_v2(_of(stream), ctypes.c_uint64(address), value % _WORDS, _AT_LEAST))


def write_word(stream: torch.cuda.Stream, address: int, value: int) -> None:
    """Has a stream write a word at a host address, after all that it was given before."""
    _check(_library().cuStreamWriteValue32_v2(_of(stream), ctypes.c_uint64(address), value % _WORDS, _DEFAULT))


def fetch_rows(stream: torch.cuda.Stream, source: int, pitch: int, target: int, width: int, height: int) -> None:
    """Has a stream copy `height` rows of `width` bytes, `pitch` apart on the GPU, to a host address without gaps."""
    rows = _Rows(
        source_kind=_DEVICE, source_device=source, source_pitch=pitch,
        target_kind=_HOST, target_host=target, target_pitch=width,
        width=width, height=height,
    )  # fmt: skip
    _copy(stream, rows)


def send_rows(stream: torch.cuda.Stream, source: int, target: int, pitch: int, width: int, height: int) -> None:
    """Has a stream copy `height` rows of `width` bytes, without gaps at a host address, to rows `pitch` apart on the
    GPU."""
    rows = _Rows(
        source_kind=_HOST, source_host=source, source_pitch=width,
        target_kind=_DEVICE, target_device=target, target_pitch=pitch,
        width=width, height=height,
    )  # fmt: skip
    _copy(stream, rows)


def _copy(stream: torch.cuda.Stream, rows: _Rows) -> None:
    _check(_library().cuMemcpy2DAsync_v2(ctypes.byref(rows), _of(stream)))


@cache
def can_wait(index: int) -> bool:
    """Whether streams of this GPU can wait for words and write them; tried once a process."""
    device = torch.device("cuda", index)
    word = torch.zeros(1, dtype=torch.int32, pin_memory=True)
    with torch.cuda.device(device):
        stream = torch.cuda.current_stream(device)
        try:
            write_word(stream, word.data_ptr(), 7)
            wait_for_word(stream, word.data_ptr(), 7)
        except (DeviceError, AttributeError):
            return False
        stream.synchronize()
    return int(word[0]) == 7


@cache
def _library() -> ctypes.CDLL:
    return ctypes.CDLL("libcuda.so.1")


def _of(stream: torch.cuda.Stream) -> ctypes.c_void_p:
    return ctypes.c_void_p(stream.cuda_stream)


def _check(code: int) -> None:
    if code != 0:
        raise DeviceError(f"the CUDA driver refused a call: error {code}")
