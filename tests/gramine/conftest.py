"""One rehearsal for all tests of a module."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

pytest.importorskip("typer")
pytest.importorskip("PIL")

from slalom.gramine import Installation, measure_installation
from tests.gramine.enclaves import make_gramine, make_plan, make_python


@dataclass(frozen=True)
class Place:
    """Where the tests' interpreter, Gramine and plan are."""

    python: Path
    gramine: Path
    plan_file: Path


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    folder = tmp_path_factory.mktemp("enclave")
    return Place(make_python(folder / "venv"), make_gramine(folder / "gramine"), make_plan(folder))


@pytest.fixture(scope="session")
def installation(place: Place) -> Installation:
    return measure_installation(place.python, place.gramine, place.plan_file)
