"""`slalom bench`: the trusted pass, the trusted engine and the protection levels, measured on this machine now."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from slalom.arithmetic.dispatch import make_dispatch
from slalom.bench.boundary import LEVELS as BOUNDARY_LEVELS
from slalom.bench.boundary import measure_boundary, measure_round_trip
from slalom.bench.engine import measure_engine
from slalom.bench.evaluate import random_samples
from slalom.bench.fused import measure_fused
from slalom.bench.levels import measure_levels
from slalom.cli.arguments import parse_isa, require_positive
from slalom.cli.bench_view import Measurements, NetworkMeasurements, bench_document, print_measurements
from slalom.cli.network import Network, NetworkOptions
from slalom.cli.offline import offline_network
from slalom.cli.screen import guarded, print_json, progress_bar, waiting
from slalom.trusted.policy import Protection

DEFAULT_MODEL = "efficientnet_lite0"
SEED = 3


@guarded
def bench_command(
    model: Annotated[str, typer.Argument(help="the network whose levels are compared")] = DEFAULT_MODEL,
    batch_size: Annotated[int, typer.Option(help="images in a request")] = 8,
    image_size: Annotated[int | None, typer.Option(help="height and width of the input")] = None,
    weights: Annotated[Path | None, typer.Option(help="a checkpoint: .pt, .pth or .safetensors")] = None,
    threads: Annotated[int | None, typer.Option(help="of the levels; the kernels are measured on one")] = None,
    isa: Annotated[str | None, typer.Option(help="of the kernels: numpy, portable, avx2 or avx512")] = None,
    kernels_only: Annotated[bool, typer.Option("--kernels-only", help="leave the protection levels out")] = False,
    json: Annotated[bool, typer.Option("--json", help="JSON on stdout")] = False,
) -> None:
    """Measure the trusted pass, the trusted engine, every protection level and the boundary, side by side."""
    require_positive("--batch-size", batch_size)
    require_positive("--threads", threads)
    single = make_dispatch(parse_isa(isa), 1)
    with waiting("measuring the trusted pass on one core"):
        fused = measure_fused(single)
    with waiting("measuring the trusted engine on one core"):
        engine = measure_engine(single)
    taken = Measurements(single.isa.value, fused, engine)
    if not kernels_only:
        with offline_network(model, NetworkOptions(weights, image_size, threads=threads)) as network:
            taken = replace(taken, network=_measure_network(network, batch_size, threads))
    if json:
        print_json(bench_document(taken))
    else:
        print_measurements(taken)


def _measure_network(network: Network, batch_size: int, threads: int | None) -> NetworkMeasurements:
    images: np.ndarray = random_samples(network.plan, batch_size, SEED).images
    with progress_bar("levels", len(Protection) + (network.float_network is not None)) as progress:
        levels = measure_levels(network.plan, images, network.float_network, threads, progress)
    with waiting("measuring an empty message"):
        round_trip = measure_round_trip(network.plan)
    with progress_bar("the boundary", len(BOUNDARY_LEVELS)) as progress:
        boundary = measure_boundary(network.plan, images, threads, progress)
    return NetworkMeasurements(network.plan, batch_size, levels, round_trip, boundary)
