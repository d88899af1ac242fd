"""How large an enclave a plan needs: a power of two, since SGX knows no other size."""

from __future__ import annotations

import re

from slalom.errors import ApiMisuse

_MIB = 1 << 20
_BASE = 320 * _MIB  # Python, NumPy, OpenSSL, Gramine; a bare interpreter with both holds 44 MB (decision 0013)
_OF_A_THREAD = 16 * _MIB  # a stack of 2 MiB, the allocator's cache, the kernels' scratch
_LEAST, _MOST = 512 * _MIB, 1 << 40
_SIZE = re.compile(r"([1-9][0-9]{0,5})([KMG])")
_UNITS = {"K": 1 << 10, "M": _MIB, "G": 1 << 30}


def enclave_size(held: int, in_flight: int, threads: int) -> int:
    """The enclave in bytes for `held` bytes at set-up and `in_flight` bytes of a request, both predicted.

    `held` counts twice: a probe image takes float64 copies of its layer for a moment (decision 0013: 320 MB predicted,
    600 MB seen). Raises ApiMisuse above a tebibyte.
    """
    needed = _BASE + 2 * held + 2 * in_flight + threads * _OF_A_THREAD
    size = max(_LEAST, 1 << (needed - 1).bit_length())
    if size > _MOST:
        raise ApiMisuse("this plan needs an enclave of more than a tebibyte", hint="a smaller --batch-size takes less")
    return size


def parse_enclave_size(text: str) -> int:
    """The bytes of a size such as 2G. Raises ApiMisuse for anything but a power of two with K, M or G."""
    match = _SIZE.fullmatch(text)
    size = int(match[1]) * _UNITS[match[2]] if match else 0
    if not size or size & (size - 1) or size > _MOST:
        raise ApiMisuse(f"{text!r:.40} is no enclave size", hint="a power of two, such as 512M or 2G")
    return size


def readable_enclave_size(size: int) -> str:
    """The bytes as Gramine writes them: `2G`, `512M`."""
    return f"{size >> 30}G" if size % (1 << 30) == 0 else f"{size >> 20}M"
