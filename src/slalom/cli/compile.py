"""`slalom compile MODEL -o FILE`: a network as a plan file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from slalom.cli.arguments import require_writable
from slalom.cli.network import NetworkOptions, compile_network, is_plan_file
from slalom.cli.screen import guarded, note, print_json, readable_bytes, waiting
from slalom.errors import ApiMisuse


@guarded
def compile_command(
    model: Annotated[str, typer.Argument(help="a name of the zoo, or package.module:factory")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="where the plan goes; MODEL.slalom by default")
    ] = None,
    weights: Annotated[Path | None, typer.Option(help="a checkpoint: .pt, .pth or .safetensors")] = None,
    image_size: Annotated[int | None, typer.Option(help="height and width of the input")] = None,
    calibration: Annotated[Path | None, typer.Option(help="a directory of photos to calibrate with")] = None,
    bits: Annotated[int, typer.Option(help="most bits of an activation, 2..15")] = 12,
    json: Annotated[bool, typer.Option("--json", help="JSON on stdout")] = False,
) -> None:
    """Compile a network into a plan that both sides read."""
    if is_plan_file(model):
        raise ApiMisuse(f"{model} is compiled already", hint=f"slalom inspect {model}")
    path = output or Path(f"{model.rsplit(':', 1)[-1]}.slalom")
    require_writable(path)
    network = compile_network(model, NetworkOptions(weights, image_size, calibration, bits))
    with waiting(f"writing {path}"):
        network.plan.save(path)
    size = path.stat().st_size
    if json:
        print_json(
            {
                "model": network.plan.graph.model,
                "plan": str(path),
                "plan_digest": network.plan.digest,
                "size_bytes": size,
                "weights": network.origin,
            }
        )
    else:
        note(f"wrote {path}: {readable_bytes(size)}, weights {network.origin}")
        typer.echo(network.plan.digest)
