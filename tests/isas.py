"""The instruction sets that a test of everything but matrix products runs through."""

from __future__ import annotations

from slalom.arithmetic.dispatch import Isa, available_isas

FUSED_ISAS = tuple(isa for isa in available_isas() if isa is not Isa.AMX)
"""AMX has matrix products of its own, and every other kernel from AVX-512: bind_fused.cpp, bind_linear.cpp."""
