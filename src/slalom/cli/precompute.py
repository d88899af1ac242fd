"""`slalom precompute PLAN`: how fast this machine makes masks, and what they take."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from slalom.arithmetic.dispatch import make_dispatch
from slalom.bench.masks import MasksFound, measure_masks
from slalom.cli.arguments import parse_isa, require_positive
from slalom.cli.mask_arguments import MEMORY_GIGABYTES, parse_gigabytes
from slalom.cli.screen import (
    data_console,
    guarded,
    print_json,
    printable,
    progress_bar,
    readable_bytes,
    readable_seconds,
    waiting,
)
from slalom.plan import Plan

_PER_HOUR = 3600


@guarded
def precompute_command(
    plan_file: Annotated[Path, typer.Argument(metavar="PLAN", help="a .slalom file")],
    images: Annotated[int, typer.Option(help="images to make masks for")] = 16,
    batch_size: Annotated[int, typer.Option(help="images in a micro-batch")] = 8,
    memory: Annotated[float, typer.Option(help="gigabytes that waiting masks may take here")] = MEMORY_GIGABYTES,
    spill: Annotated[Path | None, typer.Option(help="a folder for those beyond, sealed")] = None,
    threads: Annotated[int | None, typer.Option(help="all cores by default")] = None,
    isa: Annotated[str | None, typer.Option(help="numpy, portable, avx2, avx512 or amx")] = None,
    json: Annotated[bool, typer.Option("--json", help="JSON on stdout")] = False,
) -> None:
    """Make masks as a session would, time it, and destroy them: they are of use to the session alone that made them."""
    for option, count in (("--images", images), ("--batch-size", batch_size), ("--threads", threads)):
        require_positive(option, count)
    most = parse_gigabytes("--memory", memory)
    dispatch = make_dispatch(parse_isa(isa), threads)
    try:
        with waiting(f"reading {plan_file}"):
            plan = Plan.load(plan_file)
        with progress_bar("masks", images) as progress:
            found = measure_masks(plan, dispatch, images, batch_size, most, spill, progress)
    finally:
        dispatch.close()
    if json:
        print_json(_document(plan, found, dispatch.threads))
    else:
        _print(plan, found, dispatch.threads)


def _document(plan: Plan, found: MasksFound, threads: int) -> dict[str, object]:
    return {
        "model": plan.graph.model,
        "plan_digest": plan.digest,
        "isa": found.isa,
        "threads": threads,
        "images": found.images,
        "seconds": found.seconds,
        "images_per_second": found.images_per_second,
        "int8_products_per_second": found.products_per_second,
        "mask_bytes_per_image": found.cost.masks,
        "mask_image_bytes_per_image": found.cost.images,
        "spilled_images": found.spilled,
        "spilled_bytes": found.sealed_bytes,
        "opened_seconds": found.opened_seconds,
    }


def _print(plan: Plan, found: MasksFound, threads: int) -> None:
    console = data_console()
    console.print(Text(printable(plan.graph.model), style="bold"))
    grid = Table.grid(padding=(0, 2))
    grid.add_column(no_wrap=True, style="bold")
    grid.add_column(overflow="fold")
    speed = (
        f"{found.images_per_second:.1f} images/s, {found.products_per_second / 1e12:.3f} T products of int8 a second"
    )
    cost = f"{readable_bytes(found.cost.total)} an image, {found.cost.products / 1e9:.1f} G products of int8"
    hour = found.images_per_second * _PER_HOUR
    rows = [
        ("made", f"masks for {found.images} images in {readable_seconds(found.seconds)} on {threads} threads"),
        ("kernels", found.isa),
        ("speed", speed),
        ("cost", cost),
        ("estimate", f"{hour:,.0f} images an hour, {readable_bytes(hour * found.cost.total)} if all are kept"),
    ]
    if found.spilled:
        spilled = f"{found.spilled} images, {readable_bytes(found.sealed_bytes)}"
        rows.append(("spilled", f"{spilled}; opened again in {readable_seconds(found.opened_seconds)}"))
    for name, text in rows:
        grid.add_row(name, text)
    console.print(grid)
    console.print("destroyed: masks are of use to the session alone that made them (slalom eval --mask-bank)")
