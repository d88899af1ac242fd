"""`slalom compile MODEL -o FILE`: a network as a plan file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from slalom.cli.network import NetworkOptions, open_network
from slalom.cli.screen import guarded, note_console, print_json, readable_bytes


@guarded
def compile_command(
    model: Annotated[str, typer.Argument(help="a name of the zoo, or package.module:factory")],
    output: Annotated[Path | None, typer.Option("--output", "-o", help="where the plan goes")] = None,
    weights: Annotated[Path | None, typer.Option(help="a checkpoint: .pt, .pth or .safetensors")] = None,
    image_size: Annotated[int | None, typer.Option(help="height and width of the input")] = None,
    calibration: Annotated[Path | None, typer.Option(help="a directory of photos to calibrate with")] = None,
    bits: Annotated[int, typer.Option(help="most bits of an activation, 2..15")] = 12,
    json: Annotated[bool, typer.Option("--json", help="JSON on stdout")] = False,
) -> None:
    """Compile a network into a plan that both sides read."""
    network = open_network(model, NetworkOptions(weights, image_size, calibration, bits))
    path = output or Path(f"{model.rsplit(':', 1)[-1]}.slalom")
    network.plan.save(path)
    size = path.stat().st_size
    if json:
        print_json(
            {"plan": str(path), "plan_digest": network.plan.digest, "size_bytes": size, "weights": network.origin}
        )
    else:
        note_console().print(f"wrote {path}: {readable_bytes(size)}, weights {network.origin}")
        typer.echo(network.plan.digest)
