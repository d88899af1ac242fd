"""`slalom bench`: a network in every engine and at every level side by side, and the kernels, measured here and now."""

from __future__ import annotations

import json as json_module
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from slalom.arithmetic.dispatch import Dispatch, make_dispatch
from slalom.bench import engine as engine_bench
from slalom.bench import fused as fused_bench
from slalom.bench.boundary import LEVELS as BOUNDARY_LEVELS
from slalom.bench.boundary import measure_boundary, measure_round_trip
from slalom.bench.comparison import Comparison, decode_comparison
from slalom.bench.evaluate import random_samples
from slalom.bench.provenance import find_provenance
from slalom.bench.records import append_rows, require_appendable
from slalom.bench.side_by_side import Bench, Wanted
from slalom.cli.arguments import parse_isa, require_writable
from slalom.cli.bench_arguments import BenchWords, parse_wanted, require_plots
from slalom.cli.bench_view import Measurements, bench_document, print_measurements
from slalom.cli.comparison_view import print_comparison
from slalom.cli.network import Network, NetworkOptions
from slalom.cli.offline import offline_timing
from slalom.cli.screen import guarded, platform_of, print_json, progress_bar, waiting
from slalom.errors import ApiMisuse, InputError
from slalom.fleet.roster import SPAWN

DEFAULT_MODEL = "efficientnet_lite0"
SEED = 3


@dataclass(frozen=True)
class Outputs:
    """Where the rows go beside stdout."""

    append: Path | None
    report: Path | None


@guarded
def bench_command(
    model: Annotated[str, typer.Argument(help="the network that is measured")] = DEFAULT_MODEL,
    levels: Annotated[str, typer.Option(help="protection levels, with commas, or all")] = "all",
    baselines: Annotated[
        str | None, typer.Option(help="gpu, torch, openvino, with commas, or none; those that are here by default")
    ] = None,
    cores: Annotated[str | None, typer.Option(help="trusted cores, with commas; 1, 4 and all by default")] = None,
    device: Annotated[list[str] | None, typer.Option(help="as in eval")] = None,
    worker_device: Annotated[str, typer.Option(help="what a spawned worker computes on: cpu or cuda")] = "cpu",
    batch_size: Annotated[int, typer.Option(help="images in a request")] = 8,
    micro_batches: Annotated[int, typer.Option(help="parts of a request in flight at once")] = 2,
    masks: Annotated[
        str, typer.Option(help="of private: ready; also refilling, sustained (a bank on the same cores), dealt, or all")
    ] = "ready",
    dealer: Annotated[str, typer.Option(help="who deals where masks are dealt: as in eval")] = SPAWN,
    repeats: Annotated[int | None, typer.Option(help="requests of a row, at least; 5 by default")] = None,
    seconds: Annotated[float | None, typer.Option(help="that a row is measured for; 2 by default")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="figures that mean little, soon")] = False,
    append: Annotated[Path | None, typer.Option(help="a CSV file that gets a line for each row")] = None,
    report: Annotated[Path | None, typer.Option(help="an HTML page to write, which needs no network")] = None,
    measured: Annotated[
        Path | None, typer.Option("--from", help="show what an earlier run wrote with --json; measures nothing")
    ] = None,
    commit: Annotated[str | None, typer.Option(help="of this code, where it runs outside a checkout")] = None,
    image_size: Annotated[int | None, typer.Option(help="height and width of the input")] = None,
    weights: Annotated[Path | None, typer.Option(help="a checkpoint: .pt, .pth or .safetensors")] = None,
    isa: Annotated[str | None, typer.Option(help="of the kernels: numpy, portable, avx2, avx512 or amx")] = None,
    kernels_only: Annotated[bool, typer.Option("--kernels-only", help="the kernels alone, no network")] = False,
    rows_only: Annotated[bool, typer.Option("--rows-only", help="the rows alone: no kernels, no boundary")] = False,
    json: Annotated[bool, typer.Option("--json", help="JSON on stdout")] = False,
) -> None:
    """Measure a network in plain engines and at every protection level, side by side, and the trusted kernels."""
    outputs = Outputs(append, report)
    if kernels_only and rows_only:
        raise ApiMisuse("--kernels-only and --rows-only leave nothing to measure", hint="choose one of them")
    _require_outputs(outputs)
    if measured is not None:
        _show_again(measured, outputs)
        return
    words = BenchWords(
        levels=levels,
        baselines=baselines,
        cores=cores,
        devices=device,
        worker_device=worker_device,
        micro_batches=micro_batches,
        repeats=repeats,
        seconds=seconds,
        quick=quick,
        rows_only=rows_only,
        isa=parse_isa(isa),
        batch_size=batch_size,
        masks=masks,
        dealer=dealer,
        commit=commit,
    )
    wanted = replace(parse_wanted(words), timelines=report is not None or json)
    single = make_dispatch(words.isa, 1)
    taken = Measurements(single.isa.value, [], []) if rows_only else _measure_kernels(single)
    if not kernels_only:
        with offline_timing(model, NetworkOptions(weights, image_size)) as network:
            taken = _measure_network(taken, network, wanted, words)
    _write(outputs, taken.comparison)  # before the tables: who reads those may stop
    if json:
        print_json(bench_document(taken))
    else:
        print_measurements(taken)
    if taken.interrupted:
        raise KeyboardInterrupt  # nothing measured is lost, and the exit code says that it is not all


def _require_outputs(outputs: Outputs) -> None:
    """Finds before minutes of work, not after, that something cannot be written."""
    if outputs.append is not None:
        require_appendable(outputs.append)
    if outputs.report is not None:
        require_writable(outputs.report)
        require_plots()


def _measure_kernels(single: Dispatch) -> Measurements:
    with waiting("measuring the trusted pass on one core"):
        fused = fused_bench.measure_fused(single)
    with waiting("measuring the trusted engine on one core"):
        engine = engine_bench.measure_engine(single)
    return Measurements(single.isa.value, fused, engine)


def _measure_network(taken: Measurements, network: Network, wanted: Wanted, words: BenchWords) -> Measurements:
    images: np.ndarray = random_samples(network.plan, words.batch_size, SEED).images
    comparison, interrupted = _compare(network, images, wanted, words.commit)
    taken = replace(taken, comparison=comparison, interrupted=interrupted)
    if words.quick or words.rows_only or interrupted:
        return taken
    worker_device = wanted.arrangement.worker_device
    with waiting("measuring an empty message"):
        taken = replace(taken, round_trip=measure_round_trip(network.plan, worker_device))
    if worker_device != "cpu":  # a device in this process computes on the CPU: nothing to hold the other against
        return taken
    with progress_bar("the boundary", len(BOUNDARY_LEVELS)) as progress:
        boundary = measure_boundary(network.plan, images, max(wanted.cores), progress)
    return replace(taken, boundary=tuple(boundary))


def _compare(network: Network, images: np.ndarray, wanted: Wanted, commit: str | None) -> tuple[Comparison, bool]:
    """The rows, and whether they are only those until an interruption."""
    if network.ask is None:
        raise ApiMisuse("there is no process to time the baselines in")
    with progress_bar("side by side", wanted.steps) as progress:
        found = Bench(network.plan, images, network.ask, wanted).measure(progress)
    comparison = Comparison(
        provenance=find_provenance(found.gpu, found.float_versions, commit),
        platform=platform_of(found.workers),
        model=network.plan.graph.model,
        plan_digest=network.plan.digest,
        weights=network.origin,
        worker_device=wanted.arrangement.worker_device,
        rows=found.rows,
        limits=found.limits,
        skipped=found.skipped,
        timelines=found.timelines,
    )
    return comparison, found.interrupted


def _show_again(measured: Path, outputs: Outputs) -> None:
    """What `--from` asks for: the same tables, page and lines as in the run that measured."""
    try:
        document: Any = json_module.loads(measured.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{measured} is not JSON", hint="slalom bench --json writes it") from error
    comparison = decode_comparison(document.get("side_by_side") if isinstance(document, dict) else None)
    _write(outputs, comparison)
    print_comparison(comparison)


def _write(outputs: Outputs, comparison: Comparison | None) -> None:
    if comparison is None:
        return
    if outputs.append is not None:
        append_rows(outputs.append, comparison)
    if outputs.report is not None:
        from slalom.cli.bench_page import comparison_page

        outputs.report.write_text(comparison_page(comparison), encoding="utf-8")
