"""`slalom gramine-manifest PLAN`: the manifest that runs the trusted side in an SGX enclave by Gramine."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from slalom.bench.memory import trusted_memory
from slalom.cli.arguments import require_positive, require_writable
from slalom.cli.network import is_plan_file
from slalom.cli.screen import guarded, note, readable_bytes, waiting
from slalom.errors import ApiMisuse
from slalom.files import written_whole
from slalom.gramine import (
    Enclave,
    Run,
    enclave_size,
    encode_manifest,
    make_manifest,
    measure_installation,
    parse_enclave_size,
)
from slalom.gramine.manifest import Avx512
from slalom.gramine.size import readable_enclave_size
from slalom.plan import Plan
from slalom.trusted.policy import parse_policy

GRAMINE = Path("/usr/lib/x86_64-linux-gnu/gramine")
_MOST_THREADS = 1000
_MOST_NUMBER = 0xFFFF  # ISVPRODID and ISVSVN have 16 bits


@guarded
def gramine_manifest_command(
    plan_file: Annotated[Path, typer.Argument(metavar="PLAN", help="a .slalom file")],
    device: Annotated[str, typer.Option(help="the worker: tcp:ADDRESS:PORT, numeric")] = "tcp:127.0.0.1:7351",
    output: Annotated[Path | None, typer.Option("--output", "-o", help="where it goes; stdout by default")] = None,
    protection: Annotated[str, typer.Option(help="private or verified")] = "private",
    check: Annotated[str, typer.Option(help="direct, batched or preprocessed")] = "preprocessed",
    rounds: Annotated[int, typer.Option(help="independent checks of every linear result")] = 1,
    batch_size: Annotated[int, typer.Option(help="images in a request")] = 8,
    batches: Annotated[int, typer.Option(help="requests, at most")] = 4,
    threads: Annotated[int, typer.Option(help="of the trusted side")] = 4,
    images: Annotated[Path | None, typer.Option(help="a directory of photos, each a trusted file")] = None,
    size: Annotated[str | None, typer.Option("--enclave-size", help="a power of two, such as 2G; by the plan")] = None,
    avx512: Annotated[Avx512, typer.Option(help="whether the enclave needs AVX-512 to start")] = Avx512.UNSPECIFIED,
    product: Annotated[int, typer.Option("--isv-prod-id", help="0..65535")] = 0,
    version: Annotated[int, typer.Option("--isv-svn", help="0..65535")] = 0,
    python: Annotated[Path | None, typer.Option(help="the interpreter inside; this one by default")] = None,
    gramine: Annotated[Path, typer.Option(help="Gramine's library folder")] = GRAMINE,
) -> None:
    """Write a Gramine manifest in which every file that the enclave may open is listed with its SHA-256."""
    policy = parse_policy(protection, check, rounds, "ahead")
    if not policy.protection.checked:
        raise ApiMisuse(f"protection {protection} checks nothing", hint="use --protection private or verified")
    _refuse_nonsense(plan_file, (batch_size, batches, threads), (product, version))
    if output is not None:
        require_writable(output)
    folder = None if images is None else images.resolve()
    run = Run(plan_file.resolve(), device, protection, check, rounds, batch_size, batches, threads, folder)
    with waiting(f"reading {plan_file}"):
        plan = Plan.load(plan_file)
    if plan.graph.preprocessing is not None and images is None:
        raise ApiMisuse("this network takes photos", hint="--images DIR: the enclave opens only what was measured")
    memory = trusted_memory(plan, policy)
    needed = enclave_size(memory.peak, memory.in_flight * batch_size, threads)
    chosen = _chosen_size(size, needed)
    interpreter = Path(os.path.abspath(python or sys.executable))  # noqa: PTH100 - resolved, it would leave its venv
    with waiting("rehearsing the trusted side"):
        installation = measure_installation(interpreter, gramine.resolve(), run.plan_file, folder)
    text = encode_manifest(make_manifest(run, Enclave(chosen, product, version, avx512), installation))
    _put(text, output)
    note(
        f"{len(installation.files)} trusted files, {readable_bytes(installation.size)}; enclave of "
        f"{readable_enclave_size(chosen)}; plan {plan.digest}"
    )


def _refuse_nonsense(plan_file: Path, counts: tuple[int, int, int], numbers: tuple[int, int]) -> None:
    if not is_plan_file(plan_file.name):
        raise ApiMisuse(f"{plan_file} is no plan file", hint="slalom compile makes one")
    for option, count in zip(("--batch-size", "--batches", "--threads"), counts, strict=True):
        require_positive(option, count)
    if counts[2] > _MOST_THREADS:
        raise ApiMisuse(f"--threads must be at most {_MOST_THREADS}, not {counts[2]}")
    for option, number in zip(("--isv-prod-id", "--isv-svn"), numbers, strict=True):
        if not 0 <= number <= _MOST_NUMBER:
            raise ApiMisuse(f"{option} must be from 0 to {_MOST_NUMBER}, not {number}")


def _chosen_size(text: str | None, needed: int) -> int:
    if text is None:
        return needed
    chosen = parse_enclave_size(text)
    if chosen < needed:
        word = readable_enclave_size(needed)
        raise ApiMisuse(f"an enclave of {text} is too small: this plan needs {word}", hint=f"--enclave-size {word}")
    return chosen


def _put(text: str, output: Path | None) -> None:
    """To stdout, or to a file, whole or not at all."""
    if output is None:
        sys.stdout.write(text)
        sys.stdout.flush()
        return
    with written_whole(output) as file:
        file.write(text.encode())
