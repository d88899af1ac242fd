"""What every command shares: the two streams, progress, refusals, numbers for people."""

from __future__ import annotations

import errno
import functools
import json
import math
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ParamSpec

import typer
from rich import box
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Table
from rich.text import Text

from slalom.errors import SlalomError
from slalom.reporting import Worker

Arguments = ParamSpec("Arguments")

INTERRUPTED = 130
FAILED = 1
SIMULATION = "simulation: no TEE, and the device shares the trusted process"
SEPARATE = "simulation: no TEE; the device is another process"
ALONE = "simulation: no TEE; nothing leaves the trusted process"


def platform_of(workers: Sequence[Worker]) -> str:
    """Where the trusted side ran, in one line: no version so far has run in a TEE."""
    if not workers:
        return ALONE
    return SIMULATION if any(worker.in_process for worker in workers) else SEPARATE


def data_console() -> Console:
    """Where results go."""
    return Console(highlight=False)


def guarded(command: Callable[Arguments, None]) -> Callable[Arguments, None]:
    """Turns every refusal into one line on stderr, a hint where there is one, and the error's exit code."""

    @functools.wraps(command)
    def run(*args: Arguments.args, **kwargs: Arguments.kwargs) -> None:
        try:
            command(*args, **kwargs)
        except SlalomError as error:
            _refuse(str(error), error.hint)
            raise typer.Exit(error.exit_code) from error
        except KeyboardInterrupt as error:
            _refuse("interrupted")
            raise typer.Exit(INTERRUPTED) from error
        except MemoryError as error:
            _refuse("not enough memory", "a smaller --batch-size or --image-size takes less")
            raise typer.Exit(FAILED) from error
        except OSError as error:
            if error.errno == errno.EPIPE:
                raise  # who reads has seen enough: typer ends quietly
            _refuse(f"{error.filename or 'input or output'}: {error.strerror or type(error).__name__}")
            _let_go_of_stdout()
            raise typer.Exit(FAILED) from error

    return run


def _refuse(message: str, hint: str | None = None) -> None:
    sys.stderr.write(f"slalom: {printable(message)}\n")
    if hint:
        sys.stderr.write(f"  hint: {printable(hint)}\n")


def _let_go_of_stdout() -> None:
    """Drops what stdout does not take: the interpreter would try again at its end, and exit with a code of its own."""
    try:
        sys.stdout.flush()
    except OSError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


def note(message: str) -> None:
    """One line on stderr that is no refusal."""
    sys.stderr.write(f"{printable(message)}\n")


def printable(text: str) -> str:
    """The text with line breaks, control characters and broken letters as escapes: names of files and classes are
    other people's words."""
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode("ascii") for letter in text
    )


def plain_table(words: tuple[str, ...], numbers: tuple[str, ...]) -> Table:
    """An empty table that spends no width on lines: columns of words, folded where too long, then of numbers."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    for name in words:
        table.add_column(name, overflow="fold")
    for name in numbers:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def print_titled(console: Console, title: str, table: Table, caption: str) -> None:
    """A table under its title, with a line that explains it."""
    console.print(Text(f"\n{title}", style="bold"))
    console.print(table)
    console.print(Text(caption, style="dim"))


@contextmanager
def progress_bar(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """A bar on stderr, gone when done, none where stderr is no terminal; yields the function that advances it."""
    with _progress(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()) as progress:
        if progress is None:
            yield lambda count: None
            return
        task = progress.add_task(printable(what), total=total)
        yield lambda count: progress.advance(task, count)


@contextmanager
def waiting(what: str) -> Iterator[None]:
    """A spinner on stderr for work whose length is not known."""
    with _progress(SpinnerColumn(), TextColumn("{task.description}", markup=False)) as progress:
        if progress is not None:
            progress.add_task(printable(what), total=None)
        yield


@contextmanager
def _progress(*columns: ProgressColumn) -> Iterator[Progress | None]:
    console = Console(stderr=True, highlight=False)
    if not console.is_terminal:
        yield None
        return
    with Progress(*columns, TimeElapsedColumn(), console=console, transient=True) as progress:
        yield progress


def print_json(document: dict[str, Any]) -> None:
    """One JSON document on stdout; numbers that are not finite, which JSON has not, become null."""
    sys.stdout.write(json.dumps(_finite(document), indent=2, allow_nan=False) + "\n")
    sys.stdout.flush()  # a full disk or a closed pipe is met here, not at the interpreter's end


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def readable_bytes(size: float) -> str:
    """A size with three digits and a decimal unit."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 999.5:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} TB"


def readable_seconds(seconds: float) -> str:
    """Seconds, or milliseconds where that reads better."""
    return f"{seconds:.2f} s" if seconds >= 0.9995 else f"{seconds * 1000:.3g} ms"
