"""`slalom worker`: an untrusted worker that trusted sides on this or another machine reach."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from slalom.cli.arguments import require_positive
from slalom.cli.screen import guarded
from slalom.errors import ApiMisuse, ModelError
from slalom.isolation.level import parse_isolation
from slalom.link.endpoint import Transport, parse_endpoint
from slalom.worker.boot import ENVIRONMENT_DEFAULTS, worker_command
from slalom.worker.options import WorkerOptions

DEVICES = ("cpu", "cuda")


@guarded
def worker_command_line(
    plan: Annotated[Path, typer.Option(help="the .slalom file to serve")],
    listen: Annotated[str, typer.Option(help="unix:PATH or tcp:HOST:PORT; port 0 takes a free one")],
    device: Annotated[str, typer.Option(help="what it computes on: cpu or cuda")] = "cpu",
    threads: Annotated[int | None, typer.Option(help="of the engine; all cores by default")] = None,
    isolation: Annotated[str, typer.Option(help="strict, best-effort or off")] = "best-effort",
    allow_shm: Annotated[
        bool, typer.Option("--allow-shm", help="open files of /dev/shm that a trusted side on this host names")
    ] = False,
    attack: Annotated[str | None, typer.Option(help="serve as a named cheating device, to see it refused")] = None,
) -> None:
    """Serve a plan to trusted sides, one at a time, until interrupted; the endpoint goes to stdout once it listens."""
    endpoint = parse_endpoint(listen)
    parse_isolation(isolation)
    require_positive("--threads", threads)
    if device not in DEVICES:
        raise ApiMisuse(f"unknown device {device!r:.60}", hint=f"choose one of {', '.join(DEVICES)}")
    if attack is not None:
        from slalom.attacks.table import require_attack  # no part of what runs inside a TEE

        require_attack(attack)
    if allow_shm and endpoint.transport is Transport.UNIX:
        raise ApiMisuse("--allow-shm is for tcp: over a unix socket memory comes as a descriptor")
    _require_readable(plan)
    options = WorkerOptions(
        plan=str(plan.resolve()),
        listen=str(endpoint),
        device=device,
        threads=threads,
        isolation=isolation,
        allow_shm=allow_shm,
        attack=attack,
    )
    command = worker_command(options)
    # LOAD-BEARING: a fresh interpreter, for NumPy has started threads in this one that no confinement would hold
    os.execve(command[0], command, {**ENVIRONMENT_DEFAULTS, **os.environ})


def _require_readable(plan: Path) -> None:
    """Raises ModelError for a file that cannot be opened, which a confined worker could not name."""
    try:
        plan.open("rb").close()
    except OSError as error:
        raise ModelError(f"cannot read plan {plan}: {error.strerror}") from error
