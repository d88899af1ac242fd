"""The command line: `slalom eval | compile | inspect | bench | gramine-manifest`.

Data goes to stdout, everything else to stderr.

Enters: arguments. Leaves: tables, or JSON with `--json`, and an exit code: 0, or the one of the error's class.
Configuration is made here and passed down; nothing below reads the environment.

    app                      the commands by name
    evaluate, evaluate_view  `eval`: what it does, what it shows
    compile, inspect         `compile`, `inspect`
    bench, bench_arguments   `bench`: what it does, from words to what is measured
    bench_view               `bench`: kernels and the whole document
    comparison_view          `bench`: rows side by side as tables
    bench_page, bench_plots  `bench`: the same as a page
    gramine                  `gramine-manifest`
    network                  from the MODEL argument to a plan
    arguments                checks of what every command takes, before any work
    screen                   the two streams, progress, refusals, numbers for people
"""

from __future__ import annotations

import io
import signal
import sys


def main() -> None:
    """The entry point of the `slalom` command."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal that lacks a letter is no reason to fail
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends like Ctrl-C: nothing half-written stays
    sys.path.append("")  # the user's own package.module:factory, behind everything that is installed
    try:
        from slalom.cli.app import app
    except ModuleNotFoundError as error:
        sys.stderr.write(f"slalom: {error.name} is not installed\n  hint: install the cli extra, see the README\n")
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        sys.stderr.write("slalom: interrupted\n")
        raise SystemExit(130) from None
    app(prog_name="slalom")
