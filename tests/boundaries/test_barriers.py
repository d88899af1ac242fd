"""The kernels read a claim in one place each, and a barrier follows: no compiler may read it again for its use.

A compiler that happens not to read twice hides a missing barrier from every test of behaviour, so this one reads the
source (`tests/trusted/test_copy_once.py` tests what the compiler made of it).
"""

from __future__ import annotations

import re
from pathlib import Path

NATIVE = Path(__file__).resolve().parents[2] / "native" / "src"


def code_of(name: str) -> str:
    return re.sub(r"//[^\n]*", "", (NATIVE / name).read_text("utf-8"))


def body_of(code: str, function: str) -> str:
    """From the name of a function, where it is defined, to the brace that closes it."""
    found = re.search(rf"\b{function}\([^;{{]*\)\s*{{(.*?)\n}}", code, re.DOTALL)
    assert found is not None
    return found.group(1)


def test_the_stages_read_claims_into_the_tile_and_stop() -> None:
    code = code_of("fused.inl")
    body = body_of(code, "read_source")
    assert body.rstrip().endswith('asm volatile("" : : "r"(y) : "memory");')
    elsewhere = code.replace(body, "")
    for source in ("claims", "packed"):
        found = [line.strip() for line in elsewhere.splitlines() if f"pass.{source}" in line]
        fetched = [line for line in found if not line.startswith(f"at.{source} = ")]
        assert len(found) == len(fetched) + 1  # the merged loop
        ahead = body_of(code, "look_ahead")
        assert all(line in ahead for line in fetched)


def test_the_merged_loop_reads_a_claim_once() -> None:
    code = code_of("merged.inl")
    body = body_of(code, "merge_vector")
    assert len(re.findall(r"\bat\.claims\b", code)) == len(re.findall(r"\bat\.packed\b", code)) == 1
    read = body.index("_mm512_loadu_si512(at.claims + i);")
    assert body[read:].split(";")[1].strip() == 'asm volatile("" : "+v"(y))'
