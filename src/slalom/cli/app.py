"""The commands by name."""

from __future__ import annotations

import typer

from slalom.cli.bench import bench_command
from slalom.cli.compile import compile_command
from slalom.cli.doctor import doctor_command
from slalom.cli.evaluate import eval_command
from slalom.cli.gramine import gramine_manifest_command
from slalom.cli.inspect import inspect_command
from slalom.cli.precompute import precompute_command
from slalom.cli.worker import worker_command_line

app = typer.Typer(
    help="Run a neural network on a GPU that nobody has to trust.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command("eval")(eval_command)
app.command("compile")(compile_command)
app.command("inspect")(inspect_command)
app.command("bench")(bench_command)
app.command("precompute")(precompute_command)
app.command("worker")(worker_command_line)
app.command("gramine-manifest")(gramine_manifest_command)
app.command("doctor")(doctor_command)
