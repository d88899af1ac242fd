"""`slalom bench`: the trusted pass, the trusted engine and the protection levels, measured on this machine now."""

from __future__ import annotations

import dataclasses
import platform
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.table import Table

from slalom.arithmetic.dispatch import Dispatch, Isa, make_dispatch
from slalom.bench.engine import EngineRow, measure_engine
from slalom.bench.evaluate import random_samples
from slalom.bench.fused import FusedRow, measure_fused
from slalom.bench.levels import LevelRow, measure_levels
from slalom.cli.network import Network, NetworkOptions, open_network
from slalom.cli.screen import data_console, guarded, print_json, progress_bar, readable_seconds, waiting
from slalom.errors import ApiMisuse
from slalom.trusted.policy import Protection

DEFAULT_MODEL = "efficientnet_lite0"
SEED = 3


@guarded
def bench_command(
    model: Annotated[str, typer.Argument(help="the network whose levels are compared")] = DEFAULT_MODEL,
    batch_size: Annotated[int, typer.Option(help="images in a request")] = 8,
    image_size: Annotated[int | None, typer.Option(help="height and width of the input")] = None,
    weights: Annotated[Path | None, typer.Option(help="a checkpoint: .pt, .pth or .safetensors")] = None,
    threads: Annotated[
        int | None, typer.Option(help="of the trusted side and of the float network; 1 for the pass")
    ] = None,
    isa: Annotated[str | None, typer.Option(help="numpy, portable, avx2 or avx512")] = None,
    kernels_only: Annotated[bool, typer.Option("--kernels-only", help="leave the protection levels out")] = False,
    json: Annotated[bool, typer.Option("--json", help="JSON on stdout")] = False,
) -> None:
    """Measure the trusted pass, the trusted linear engine and every protection level, side by side."""
    if batch_size < 1:
        raise ApiMisuse("--batch-size must be at least 1")
    single = make_dispatch(_isa(isa), 1)
    with waiting("measuring the trusted pass on one core"):
        fused = measure_fused(single)
    with waiting("measuring the trusted engine on one core"):
        engine = measure_engine(single)
    network = None if kernels_only else open_network(model, NetworkOptions(weights, image_size))
    levels = [] if network is None else _levels(network, batch_size, threads)
    if json:
        print_json(_document(single, fused, engine, levels, network))
        return
    console = data_console()
    console.print(f"{_processor()}, kernels {single.isa}")
    console.print(_fused_table(fused))
    console.print(_engine_table(engine))
    if network is not None:
        console.print(_levels_table(levels, network, batch_size))


def _isa(isa: str | None) -> Isa | None:
    if isa is not None and isa not in list(Isa):
        raise ApiMisuse(f"unknown instruction set {isa!r:.40}", hint=f"choose one of {', '.join(Isa)}")
    return None if isa is None else Isa(isa)


def _levels(network: Network, batch_size: int, threads: int | None) -> list[LevelRow]:
    images: np.ndarray = random_samples(network.plan, batch_size, SEED).images
    if threads is not None and network.float_network is not None:
        import torch

        torch.set_num_threads(threads)
    total = len(Protection) + (network.float_network is not None)
    with progress_bar("levels", total) as progress:
        return measure_levels(network.plan, images, network.float_network, threads, progress)


def _document(
    dispatch: Dispatch,
    fused: list[FusedRow],
    engine: list[EngineRow],
    levels: list[LevelRow],
    network: Network | None,
) -> dict[str, Any]:
    return {
        "processor": _processor(),
        "isa": dispatch.isa.value,
        "platform": "simulation: no TEE, and the device shares the trusted process",
        "fused_pass": [dataclasses.asdict(row) for row in fused],
        "linear_engine": [dataclasses.asdict(row) for row in engine],
        "model": None if network is None else network.plan.graph.model,
        "plan_digest": None if network is None else network.plan.digest,
        "levels": [dataclasses.asdict(row) for row in levels],
    }


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def _levels_table(levels: list[LevelRow], network: Network, batch_size: int) -> Table:
    title = f"{network.plan.graph.model}, batch {batch_size}, masks made ahead; simulation: one process, no TEE"
    table = Table(title=title, title_justify="left")
    table.add_column("level")
    for name in ("images/s", "slowest", "fastest", "of float", "trusted/image", "device/image", "masks/image"):
        table.add_column(name, justify="right")
    for row in levels:
        busy = (row.trusted_seconds, row.device_seconds, row.mask_seconds)
        table.add_row(
            row.name,
            f"{row.images_per_second:.1f}",
            f"{row.slowest:.1f}",
            f"{row.fastest:.1f}",
            "-" if row.ratio is None else f"{row.ratio:.2f}x",
            *(readable_seconds(seconds) if seconds else "-" for seconds in busy),
        )
    return table
