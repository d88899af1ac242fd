"""What every command shares: the two consoles, progress, refusals, numbers for people."""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, ParamSpec

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from slalom.errors import SlalomError

Arguments = ParamSpec("Arguments")

INTERRUPTED = 130


def data_console() -> Console:
    """Where results go."""
    return Console()


def note_console() -> Console:
    """Where progress and refusals go."""
    return Console(stderr=True, highlight=False)


def guarded(command: Callable[Arguments, None]) -> Callable[Arguments, None]:
    """Turns every refusal into one line on stderr, a hint where there is one, and the error's exit code."""

    @functools.wraps(command)
    def run(*args: Arguments.args, **kwargs: Arguments.kwargs) -> None:
        try:
            command(*args, **kwargs)
        except SlalomError as error:
            sys.stderr.write(f"slalom: {error}\n")
            if error.hint:
                sys.stderr.write(f"  hint: {error.hint}\n")
            raise typer.Exit(error.exit_code) from error
        except KeyboardInterrupt as error:
            sys.stderr.write("slalom: interrupted\n")
            raise typer.Exit(INTERRUPTED) from error

    return run


@contextmanager
def progress_bar(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """A bar on stderr, gone when done; yields the function that advances it."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=note_console(), transient=True) as progress:
        task = progress.add_task(what, total=total)
        yield lambda count: progress.advance(task, count)


@contextmanager
def waiting(what: str) -> Iterator[None]:
    """A spinner on stderr for work whose length is not known."""
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=note_console(), transient=True) as progress:
        progress.add_task(what, total=None)
        yield


def print_json(document: dict[str, Any]) -> None:
    """One JSON document on stdout."""
    sys.stdout.write(json.dumps(document, indent=2) + "\n")


def readable_bytes(size: float) -> str:
    """A size with three digits and a decimal unit."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} TB"


def readable_seconds(seconds: float) -> str:
    """Seconds, or milliseconds where that reads better."""
    return f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1000:.3g} ms"
