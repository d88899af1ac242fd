"""The report as an integer and as words; the levels by name."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slalom.errors import ApiMisuse, WireError
from slalom.isolation.level import Isolation, parse_isolation
from slalom.isolation.report import IsolationReport

FULL = IsolationReport(True, True, True, True, 7, True, True, True)


@given(
    flags=st.lists(st.booleans(), min_size=4, max_size=4), abi=st.integers(0, 255), rest=st.tuples(*[st.booleans()] * 4)
)
def test_it_survives_the_wire(flags: list[bool], abi: int, rest: tuple[bool, ...]) -> None:
    network, scopes, seccomp, gpu = rest
    report = IsolationReport(*flags, abi, network and abi >= 4, scopes and abi >= 6, seccomp, gpu)
    assert IsolationReport.decode(report.encode()) == report
    assert 0 <= report.encode() < 1 << 32


def test_the_bits_are_fixed() -> None:
    """They cross a protocol: a change here is a new version of it."""
    names = [field.name for field in dataclasses.fields(IsolationReport) if field.type == "bool"]
    alone = {name: dataclasses.replace(IsolationReport(), **{name: True}).encode() for name in names}
    assert alone == {
        "no_new_privs": 1, "parent_death_signal": 2, "descriptors_closed": 4, "no_core_dumps": 8,
        "landlock_network": 16, "landlock_scopes": 32, "seccomp": 64, "relaxed_for_gpu": 128,
    }  # fmt: skip
    assert FULL.encode() == 0x077F
    assert IsolationReport().encode() == 0


@pytest.mark.parametrize("word", [*(1 << bit for bit in range(16, 33)), -1, (1 << 32) - 1])
def test_unknown_bits_are_refused(word: int) -> None:
    with pytest.raises(WireError, match="unknown bits"):
        IsolationReport.decode(word)


@pytest.mark.parametrize("word", [16, 16 | 3 << 8, 32, 32 | 5 << 8])
def test_what_cannot_be_true_together_is_refused(word: int) -> None:
    with pytest.raises(WireError, match="of a landlock that has none"):
        IsolationReport.decode(word)


def test_an_abi_beyond_its_bits_is_the_largest() -> None:
    assert IsolationReport.decode(IsolationReport(landlock_abi=300).encode()).landlock_abi == 255


def test_words_for_people() -> None:
    assert FULL.missing == ()
    assert FULL.summary == (
        "landlock abi 7, landlock network rules, landlock scopes, seccomp, no new privileges, no core dumps, "
        "closed descriptors, parent death signal"
    )
    assert IsolationReport().summary == "no isolation"
    assert len(IsolationReport().missing) == 8
    less = dataclasses.replace(FULL, landlock_scopes=False, seccomp=False, relaxed_for_gpu=True)
    assert less.summary.endswith("parent death signal; missing: landlock scopes, seccomp; relaxed for a gpu")


def test_levels_by_name() -> None:
    assert [parse_isolation(word) for word in ("strict", "best-effort", "off")] == list(Isolation)
    with pytest.raises(ApiMisuse, match="no isolation 'none'") as caught:
        parse_isolation("none")
    assert caught.value.hint == "choose one of: strict, best-effort, off"
