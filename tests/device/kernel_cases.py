"""Values that the kernel tests share."""

from __future__ import annotations

POISON = 0x5A5A5A5A  # what an output holds before a kernel writes to it
