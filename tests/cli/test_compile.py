"""`slalom compile`: a whole file or none."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

pytest.importorskip("torch")

from slalom import Plan
from slalom.errors import ApiMisuse, ModelError
from tests.cli.running import TINY, answer, assert_refused, slalom


def test_the_plan_is_written_and_its_digest_printed(tmp_path: Path) -> None:
    path = tmp_path / "tiny.slalom"
    result = slalom("compile", TINY, "-o", path)
    assert result.exit_code == 0
    assert result.stdout == f"{Plan.load(path).digest}\n"
    assert result.stderr.startswith(f"wrote {path}: ")
    assert list(tmp_path.iterdir()) == [path]


def test_json(tmp_path: Path) -> None:
    path = tmp_path / "tiny.slalom"
    found = answer("compile", TINY, "-o", path)
    assert found == {
        "model": TINY,
        "plan": str(path),
        "plan_digest": Plan.load(path).digest,
        "size_bytes": path.stat().st_size,
        "weights": "as its factory made them",
    }


def test_what_a_network_prints_is_no_part_of_the_answer(tmp_path: Path) -> None:
    answer("compile", "tests.cli.networks:Chatty", "-o", tmp_path / "chatty.slalom")


def test_a_plan_is_not_compiled_again(tmp_path: Path) -> None:
    assert_refused(slalom("compile", tmp_path / "x.slalom"), ApiMisuse, "compiled already", "slalom inspect")
    assert list(tmp_path.iterdir()) == []


def test_places_that_cannot_be_written_are_found_before_the_work(tmp_path: Path) -> None:
    missing = tmp_path / "none" / "x.slalom"
    assert_refused(slalom("compile", "no_such_network", "-o", missing), ModelError, "cannot write", "no directory")
    assert_refused(slalom("compile", "no_such_network", "-o", tmp_path), ModelError, "it is a directory")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_a_read_only_directory(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    result = slalom("compile", "no_such_network", "-o", tmp_path / "x.slalom")
    tmp_path.chmod(0o700)
    assert_refused(result, ModelError, "is read-only")
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_fails_while_writing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    path = tmp_path / "x.slalom"
    path.write_bytes(b"what was here before")
    result = slalom("compile", TINY, "-o", path)
    assert_refused(result, ModelError, "No space left on device", hint=False)
    assert list(tmp_path.iterdir()) == [path] and path.read_bytes() == b"what was here before"


def test_an_interrupt_while_writing_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(descriptor: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    result = slalom("compile", TINY, "-o", tmp_path / "x.slalom")
    assert (result.exit_code, result.stdout, result.stderr) == (130, "", "slalom: interrupted\n")
    assert list(tmp_path.iterdir()) == []
