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
    found = re.search(rf"^( *)[^\n]*{function}\([^;{{]*\)\s*{{(.*?)\n\1}}", code, re.DOTALL | re.MULTILINE)
    assert found is not None
    return found.group(2)


def lines_with(code: str, *words: str) -> list[str]:
    return [line.strip() for line in code.splitlines() if any(word in line for word in words)]


def test_the_stages_read_claims_into_the_tile_and_stop() -> None:
    code = code_of("fused.inl")
    body = body_of(code, "read_source")
    assert body.rstrip().endswith('asm volatile("" : : "r"(y) : "memory");')
    assert not lines_with(code.replace(body, ""), "pass.claims", "pass.packed")


def test_what_is_fetched_ahead_is_never_read() -> None:
    code = code_of("ranges.inl")
    ahead = body_of(code, "look_ahead")
    assert lines_with(ahead, "pass.claims") and lines_with(ahead, "pass.packed")
    assert not lines_with(code.replace(ahead, ""), "pass.claims", "pass.packed")
    assert lines_with(code_of("merged.inl"), "at.next_claims") == ["fetch(at.next_claims + i);"]


def test_the_merged_loops_read_a_claim_once() -> None:
    code = code_of("merged.inl")
    body = body_of(code, "read_claim")
    assert len(re.findall(r"\bat\.claims\b", code)) == len(re.findall(r"\bat\.packed\b", code)) == 1
    read = body.index("_mm512_loadu_si512(at.claims + i);")
    assert body[read:].split(";")[1].strip() == 'asm volatile("" : "+v"(y))'


def test_the_passes_of_the_merged_loops_read_no_claim() -> None:
    """They say where it lies."""
    addresses = ["at.claims = pass.claims + claim;", "at.packed = pass.packed + 3 * claim;"]
    for name in ("merged_pass.inl", "merged_pool.inl"):
        code = code_of(name)
        used = lines_with(code, ".claims", ".packed")
        ahead = ["at.next_claims = ahead.claims;", "if (pass.packed != nullptr) return"]
        assert all(any(line.startswith(start) for start in [*addresses, *ahead]) for line in used)
    assert lines_with(code_of("merged_pass.inl"), *addresses) == addresses


def test_what_is_made_of_probes_does_not_stay_on_the_stack() -> None:
    body = body_of(code_of("factors.inl"), "~TileFactors")
    for array in ("source", "digits"):
        assert f"__builtin_memset({array}, 0, sizeof {array});" in body
    assert 'asm volatile("" : : "r"(source), "r"(digits) : "memory");' in body
