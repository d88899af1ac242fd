"""The command line: `slalom eval | compile | inspect | bench`. Data goes to stdout, everything else to stderr.

Enters: arguments. Leaves: tables, or JSON with `--json`, and an exit code: 0, or the one of the error's class.
Configuration is made here and passed down; nothing below reads the environment.
"""

from __future__ import annotations

import sys


def main() -> None:
    """The entry point of the `slalom` command."""
    try:
        from slalom.cli.app import app
    except ModuleNotFoundError as error:
        sys.stderr.write(f'slalom: {error.name} is not installed\n  hint: pip install "slalom[cli]"\n')
        raise SystemExit(2) from None
    app()
