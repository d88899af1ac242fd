"""`slalom doctor`: everything that was found, everything that is missing with how to get it, and an exit code."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

pytest.importorskip("torch")

from slalom import diagnosis
from slalom.arithmetic.dispatch import available_isas
from slalom.cli import doctor
from slalom.diagnosis import Diagnosis, Trial, diagnose, tiny_plan
from slalom.errors import DeviceError
from slalom.isolation.survey import Fact
from tests.cli.running import answer, slalom
from tests.environments import run_without


@pytest.fixture(scope="module")
def found() -> Diagnosis:
    return diagnose()


@pytest.fixture
def shown(found: Diagnosis, monkeypatch: pytest.MonkeyPatch) -> Diagnosis:
    """What the command shows in this test; made once."""
    monkeypatch.setattr(doctor, "diagnose", lambda: found)
    return found


def test_every_instruction_set_and_a_worker_are_tried(found: Diagnosis) -> None:
    assert [trial.name for trial in found.trusted] == list(available_isas())
    assert all(trial.passed for trial in found.trusted)
    by_name = {trial.name: trial for trial in found.worker}
    assert set(by_name) == {"torch", "gpu", "worker"}
    assert by_name["worker"].passed and "answers exactly" in by_name["worker"].found
    assert by_name["torch"].passed and "exact" in by_name["torch"].found
    assert found.sound and found.packages["numpy"] == np.__version__


def test_json(shown: Diagnosis) -> None:
    document = answer("doctor")
    assert set(document) == {
        "sound", "evidence", "tee", "strict_isolation_possible", "isolation", "processor", "isa", "trusted", "worker",
        "packages", "missing", "dealer_trust",
    }  # fmt: skip
    assert document["sound"] is True and document["tee"] == "none (simulation)"
    assert document["isa"] == available_isas()[-1]
    for lack in document["missing"]:
        assert lack["what"] and lack["hint"]


def test_what_is_missing_is_said_with_how_to_get_it(shown: Diagnosis, monkeypatch: pytest.MonkeyPatch) -> None:
    lack = Fact("landlock", "none", "boot a kernel that has it")
    survey = dataclasses.replace(shown.survey, facts=(lack,))
    monkeypatch.setattr(doctor, "diagnose", lambda: dataclasses.replace(shown, survey=survey))
    result = slalom("doctor")
    assert result.exit_code == 0
    assert "boot a kernel that has it" in result.stdout
    assert {"what": "landlock", "found": "none", "hint": "boot a kernel that has it"} in answer("doctor")["missing"]


@pytest.mark.parametrize("width", (60, 80, 120))
def test_the_screen_fits(shown: Diagnosis, width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    result = slalom("doctor")
    assert result.exit_code == 0
    assert max(map(len, result.stdout.splitlines())) <= width
    for word in ("evidence and isolation", "landlock", "seccomp", "memfd_secret", "trusted kernels", "worker", "numpy"):
        assert word in result.stdout


def test_kernels_that_are_not_exact_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Either kind: an engine that refuses itself, and a pass that differs in one bit."""

    def refuse(_: object) -> None:
        raise DeviceError("not exact here")

    monkeypatch.setattr(diagnosis, "LinearEngine", refuse)
    assert not diagnosis._try_isa(available_isas()[-1]).passed
    monkeypatch.undo()
    run = diagnosis.run_pass

    def one_bit(dispatch: object, given: object) -> object:
        result = run(dispatch, given)  # type: ignore[arg-type]
        if str(dispatch.isa) != "numpy":  # type: ignore[attr-defined]
            result.values.reshape(-1)[7] ^= 1
        return result

    monkeypatch.setattr(diagnosis, "run_pass", one_bit)
    trial = diagnosis._try_isa(available_isas()[-1])
    assert not trial.passed and "not exact" in trial.found and trial.hint


def test_what_does_not_work_ends_in_an_exit_code(shown: Diagnosis, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = dataclasses.replace(shown, trusted=(Trial("avx9", False, "not exact", "use another processor"),))
    monkeypatch.setattr(doctor, "diagnose", lambda: broken)
    result = slalom("doctor")
    assert result.exit_code == 1
    assert "FAILED: not exact" in result.stdout and "use another processor" in result.stdout
    assert not broken.sound


def test_a_machine_without_torch(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.getbasetemp() / "without_torch"
    result = run_without({"torch"}, folder, "-m", "slalom.cli", "doctor")
    assert result.returncode == 1 and result.stderr == ""
    assert "torch is not installed" in result.stdout and "install the device extra" in result.stdout


def test_the_plan_that_is_tried_is_one() -> None:
    assert len(tiny_plan().digest) == 64
