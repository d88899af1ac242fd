"""The survey tells what is there and how to get the rest, on this machine and on trees made up for it."""

from __future__ import annotations

from pathlib import Path

import pytest

from slalom.isolation import survey as module
from slalom.isolation.files import LandlockOffer
from slalom.isolation.filter import SeccompOffer
from slalom.isolation.survey import Evidence, survey


def tree(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).mkdir() if name.endswith("/") else (root / name).write_text("1\n")
    return root


@pytest.mark.parametrize(
    ("names", "evidence", "tee_files"),
    [
        ((), Evidence.NONE, ()),
        (("dev/tdx_guest",), Evidence.NONE, ("/dev/tdx_guest",)),
        (("dev/sev-guest", "dev/sgx_enclave"), Evidence.NONE, ("/dev/sev-guest", "/dev/sgx_enclave")),
        (("sys/kernel/config/tsm/report/",), Evidence.CONFIGFS_TSM, ("/sys/kernel/config/tsm/report",)),
        (("dev/attestation/quote",), Evidence.GRAMINE, ("/dev/attestation",)),
    ],
)
def test_evidence_by_what_exists(
    tmp_path: Path, names: tuple[str, ...], evidence: Evidence, tee_files: tuple[str, ...]
) -> None:
    found = survey(tree(tmp_path, *names))
    assert (found.evidence, found.tee_files) == (evidence, tee_files)
    (fact,) = [fact for fact in found.facts if fact.name == "evidence"]
    assert (fact.hint is None) == (evidence is not Evidence.NONE)
    if not names:
        assert fact.hint is not None
        assert fact.hint.startswith("there is no TEE here")
        assert fact.hint.endswith("nothing stands in for it")


def test_files_below_the_root(tmp_path: Path) -> None:
    assert survey(tmp_path).ptrace_scope is None
    assert survey(tmp_path).shared_memory_size == 0
    assert "/dev/shm" in [fact.name for fact in survey(tmp_path).missing]
    found = survey(tree(tmp_path, "proc/sys/kernel/yama/ptrace_scope", "dev/shm/"))
    assert found.ptrace_scope == 1
    assert found.shared_memory_size > 0


def test_what_is_missing_has_a_hint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "find_landlock", lambda: LandlockOffer(0, None, "install it"))
    monkeypatch.setattr(module, "find_seccomp", lambda: SeccompOffer(False, None, "boot another"))
    monkeypatch.setattr(module, "_has_secret_memory", lambda: False)
    monkeypatch.setattr(module, "_has_sealing", lambda: False)
    monkeypatch.setattr("resource.getrlimit", lambda _: (4096, 4096))
    found = survey(tmp_path)
    assert not found.strict_possible
    names = {fact.name for fact in found.missing}
    assert names == {"landlock", "seccomp", "memfd_secret", "memfd sealing", "/dev/shm", "locked memory", "evidence"}
    assert all(fact.hint for fact in found.missing)


def test_it_applies_nothing() -> None:
    from slalom.isolation.filter import is_filtered

    first = survey()
    assert survey() == first
    assert not is_filtered()
