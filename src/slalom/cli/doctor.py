"""`slalom doctor`: what this machine has, what was tried, what is missing and how to get it."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from slalom.bench.provenance import processor
from slalom.cli.screen import data_console, guarded, print_json, printable, waiting
from slalom.diagnosis import OPTIONAL, Diagnosis, Trial, diagnose
from slalom.reporting import DEALER_TRUST

FAILED = 1


@guarded
def doctor_command(json: Annotated[bool, typer.Option("--json", help="JSON on stdout")] = False) -> None:
    """Show evidence, isolation, processor features, engines and their tests, a GPU, and everything that is missing."""
    with waiting("looking at this machine"):
        found = diagnose()
    if json:
        print_json(diagnosis_document(found))
    else:
        print_diagnosis(found)
    if not found.sound:
        raise typer.Exit(FAILED)


def diagnosis_document(found: Diagnosis) -> dict[str, Any]:
    """Everything by the names of its fields; `missing` is what can be had, with how."""
    return {
        "sound": found.sound,
        "evidence": found.survey.evidence.value,
        "tee": "none (simulation)",
        "strict_isolation_possible": found.survey.strict_possible,
        "isolation": {fact.name: fact.found for fact in found.survey.facts},
        "processor": processor(),
        "isa": found.isa,
        "trusted": [dataclasses.asdict(trial) for trial in found.trusted],
        "worker": [dataclasses.asdict(trial) for trial in found.worker],
        "dealer_trust": f"a dealer {DEALER_TRUST}",
        "packages": found.packages,
        "missing": [{"what": what, "found": there, "hint": hint} for what, there, hint in missing(found)],
    }


def missing(found: Diagnosis) -> list[tuple[str, str, str]]:
    """What falls short: name, what was found, how to get it."""
    lacks = [(fact.name, fact.found, fact.hint or "") for fact in found.survey.missing]
    failed = [trial for trial in (*found.trusted, *found.worker) if not trial.passed]
    return [*lacks, *((trial.name, trial.found, trial.hint or "") for trial in failed)]


def print_diagnosis(found: Diagnosis) -> None:
    """Sections of names and values, on stdout; what is missing comes last."""
    console = data_console()
    console.print(Text(printable(processor())))
    _section(console, "evidence and isolation", [(fact.name, fact.found) for fact in found.survey.facts])
    _section(console, f"trusted kernels ({found.isa} runs)", _rows(found.trusted))
    _section(console, "worker", _rows(found.worker))
    _section(
        console,
        "who must not collude",
        [("device and dealer", f"with each other: a dealer {DEALER_TRUST}")],
    )
    _section(console, "packages", [(name, text or "not installed") for name, text in found.packages.items()])
    lacks = missing(found)
    _section(
        console, "missing" if lacks else "nothing is missing", [(what, hint or there) for what, there, hint in lacks]
    )


def _rows(trials: tuple[Trial, ...]) -> list[tuple[str, str]]:
    """A GPU that is not there is nothing that failed."""
    return [
        (trial.name, trial.found if trial.passed or trial.name == OPTIONAL else f"FAILED: {trial.found}")
        for trial in trials
    ]


def _section(console: Console, title: str, rows: list[tuple[str, str]]) -> None:
    grid = Table.grid(padding=(0, 2))
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    for name, text in rows:
        grid.add_row(Text(printable(name)), Text(printable(text)))
    console.print(Text(f"\n{title}", style="bold"))
    console.print(grid)
