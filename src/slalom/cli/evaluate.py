"""`slalom eval MODEL`: a network on photos, at a protection level, beside the float network."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.table import Table

from slalom import attacks
from slalom.bench.evaluate import Evaluation, Prediction, Samples, evaluate, random_samples
from slalom.cli.network import Network, NetworkOptions, open_network
from slalom.cli.screen import (
    data_console,
    guarded,
    print_json,
    progress_bar,
    readable_bytes,
    readable_seconds,
    waiting,
)
from slalom.errors import ApiMisuse, IntegrityError
from slalom.link.port import DevicePort
from slalom.session import Session
from slalom.trusted.policy import Policy, parse_policy
from slalom.zoo.photos import Photo, find_photos, load_photo, sample_photos

EVALUATION_SEED = 2


@dataclass(frozen=True)
class Request:
    """What `eval` was asked to do beside the network and the policy."""

    batch_size: int
    batches: int
    images: Path | None
    attack: str | None
    device: str
    threads: int | None
    isa: str | None


@guarded
def eval_command(
    model: Annotated[str, typer.Argument(help="a name of the zoo, a .slalom file, or package.module:factory")],
    protection: Annotated[str, typer.Option(help="device, enclave, verified, blinded or private")] = "private",
    check: Annotated[str, typer.Option(help="direct, batched or preprocessed")] = "preprocessed",
    rounds: Annotated[int, typer.Option(help="independent checks of every linear result")] = 1,
    schedule: Annotated[str, typer.Option(help="ahead or layerwise, for verified")] = "ahead",
    device: Annotated[str, typer.Option(help="cpu")] = "cpu",
    batch_size: Annotated[int, typer.Option(help="images in a request")] = 8,
    batches: Annotated[int, typer.Option(help="requests, at most")] = 4,
    images: Annotated[Path | None, typer.Option(help="a directory of photos")] = None,
    weights: Annotated[Path | None, typer.Option(help="a checkpoint: .pt, .pth or .safetensors")] = None,
    attack: Annotated[str | None, typer.Option(help="let a named cheating device answer")] = None,
    image_size: Annotated[int | None, typer.Option(help="height and width of the input")] = None,
    calibration: Annotated[Path | None, typer.Option(help="a directory of photos to calibrate with")] = None,
    bits: Annotated[int, typer.Option(help="most bits of an activation, 2..15")] = 12,
    threads: Annotated[int | None, typer.Option(help="of the trusted side; all cores by default")] = None,
    isa: Annotated[str | None, typer.Option(help="numpy, portable, avx2 or avx512")] = None,
    json: Annotated[bool, typer.Option("--json", help="JSON on stdout")] = False,
) -> None:
    """Run a network on photos at a protection level, and compare it with the float network."""
    request = Request(batch_size, batches, images, attack, device, threads, isa)
    policy = parse_policy(protection, check, rounds, schedule)
    _refuse_nonsense(request, policy)
    photos = None if images is None else find_photos(images)
    network = open_network(model, NetworkOptions(weights, image_size, calibration, bits))
    samples = _samples(network, photos, request)
    with _open_session(network, policy, request) as session:
        evaluation = _run(session, samples, network, request)
    if json:
        print_json(_document(network, policy, evaluation))
    else:
        _print(network, policy, evaluation)


def _refuse_nonsense(request: Request, policy: Policy) -> None:
    if request.batch_size < 1 or request.batches < 1:
        raise ApiMisuse("--batch-size and --batches must be at least 1")
    if request.attack is None:
        return
    if request.attack not in attacks.names():
        raise ApiMisuse(f"unknown attack {request.attack!r:.60}", hint=f"choose one of {', '.join(attacks.names())}")
    if not policy.protection.checked:
        raise ApiMisuse(
            f"protection {policy.protection} checks nothing, so no attack would be refused",
            hint="use --protection verified or private",
        )


def _samples(network: Network, photos: list[Photo] | None, request: Request) -> Samples:
    most = request.batch_size * request.batches
    preprocessing = network.plan.graph.preprocessing
    random_weights = network.origin.startswith("random")
    if photos is None and (preprocessing is None or random_weights):
        return random_samples(network.plan, most, EVALUATION_SEED)
    if preprocessing is None:
        raise ApiMisuse("this network does not say how a photo becomes its input")
    chosen = (sample_photos() if photos is None else photos)[:most]
    arrays = np.stack([load_photo(photo, preprocessing) for photo in chosen])
    return Samples(arrays, tuple(photo.path.name for photo in chosen), tuple(photo.label for photo in chosen))


def _open_session(network: Network, policy: Policy, request: Request) -> Session:
    device: str | DevicePort = request.device
    if request.attack is not None:
        device = attacks.make(request.attack)
    with waiting("preparing the session"):
        return Session(
            network.plan,
            protection=policy.protection,
            check=policy.check,
            rounds=policy.rounds,
            schedule=policy.schedule,
            device=device,
            threads=request.threads,
            isa=request.isa,
        )


def _run(session: Session, samples: Samples, network: Network, request: Request) -> Evaluation:
    try:
        with progress_bar("images", len(samples.images)) as progress:
            return evaluate(session, samples, request.batch_size, network.float_network, progress)
    except IntegrityError as error:
        if request.attack is None:
            raise
        message = f"attack {request.attack!r} refused: {error}"
        raise IntegrityError(message, step=error.step, hint="no answer was given; the session is over") from error


# ---------------------------------------------------------------- what is shown


def _document(network: Network, policy: Policy, evaluation: Evaluation) -> dict[str, Any]:
    report = evaluation.report
    return {
        "model": network.plan.graph.model,
        "plan_digest": network.plan.digest,
        "weights": network.origin,
        "protection": policy.protection.value,
        "check": policy.check.value if policy.protection.checked else None,
        "rounds": policy.rounds if policy.protection.checked else 0,
        "schedule": policy.schedule.value,
        "isolation": "none: the device runs in the trusted process (simulation of the boundary)",
        "tee": "none (simulation)",
        "soundness_bits": report.soundness_bits,
        "images": evaluation.images,
        "images_per_second": evaluation.images_per_second,
        "seconds": evaluation.seconds,
        "setup_seconds": report.setup_seconds,
        "trusted_seconds": report.trusted_seconds,
        "device_seconds": report.device_seconds,
        "mask_seconds": report.mask_seconds,
        "bytes_to_device": report.bytes_to_device,
        "bytes_from_device": report.bytes_from_device,
        "agreement_with_float": evaluation.agreement_with_float,
        "max_logit_error": evaluation.max_logit_error,
        "top1": evaluation.top1,
        "outputs_sha256": evaluation.outputs_sha256,
        "memory": {
            "trusted_steady_bytes": sum(report.steady_bytes.values()),
            "trusted_steady_by_kind": dict(report.steady_bytes),
            "trusted_peak_bytes": sum(report.steady_bytes.values()) + report.peak_in_flight_bytes,
            "in_flight_peak_bytes": report.peak_in_flight_bytes,
            "process_resident_bytes": evaluation.resident_bytes,
            "process_peak_resident_bytes": evaluation.peak_resident_bytes,
        },
        "predictions": [_prediction(network, item) for item in evaluation.predictions],
    }


def _prediction(network: Network, item: Prediction) -> dict[str, Any]:
    return {
        "image": item.name,
        "class": item.predicted,
        "class_name": _class_name(network, item.predicted),
        "confidence": item.confidence,
        "label": item.label,
        "float_class": item.float_predicted,
    }


def _class_name(network: Network, index: int) -> str:
    classes = network.plan.graph.classes
    return classes[index] if index < len(classes) else f"class {index}"


def _print(network: Network, policy: Policy, evaluation: Evaluation) -> None:
    console = data_console()
    title = f"{network.plan.graph.model}, {policy.protection}, weights {network.origin}"
    table = Table(title=title, title_justify="left")
    table.add_column("image", no_wrap=True)
    table.add_column("predicted")
    table.add_column("confidence", justify="right")
    table.add_column("label")
    table.add_column("same as float")
    for item in evaluation.predictions:
        right = item.label is None or item.label == item.predicted
        style = None if right else "yellow"
        table.add_row(
            item.name,
            _class_name(network, item.predicted),
            f"{item.confidence:.0%}",
            "-" if item.label is None else _class_name(network, item.label),
            {None: "-", True: "yes", False: "no"}[
                None if item.float_predicted is None else item.float_predicted == item.predicted
            ],
            style=style,
        )
    console.print(table)
    console.print(_figures(network, policy, evaluation))


def _figures(network: Network, policy: Policy, evaluation: Evaluation) -> Table:
    report = evaluation.report
    grid = Table.grid(padding=(0, 2))
    rounds = f"{policy.rounds} round{'s' if policy.rounds > 1 else ''}"
    checked = f"{policy.check}, {rounds}, {report.soundness_bits:.1f} bits over this run"
    speed = f"{evaluation.images_per_second:.1f}/s"
    setup, masks = readable_seconds(report.setup_seconds), readable_seconds(report.mask_seconds)
    rows = [
        ("plan", network.plan.digest[:32]),
        ("soundness", checked if policy.protection.checked else "none: nothing is checked"),
        ("the device saw", _SEEN[policy.protection.value]),
        ("images", f"{evaluation.images} in {readable_seconds(evaluation.seconds)}, {speed}"),
        ("trusted / device", f"{readable_seconds(report.trusted_seconds)} / {readable_seconds(report.device_seconds)}"),
        ("made ahead", f"set-up {setup}, masks {masks}"),
        ("bytes", f"{readable_bytes(report.bytes_to_device)} to the device, "
                  f"{readable_bytes(report.bytes_from_device)} from it"),
        ("trusted memory", f"{readable_bytes(sum(report.steady_bytes.values()))} steady, "
                           f"{readable_bytes(report.peak_in_flight_bytes)} more in flight"),
    ]  # fmt: skip
    if evaluation.top1 is not None:
        labelled = sum(item.label is not None for item in evaluation.predictions)
        rows.append(("top-1", f"{round(evaluation.top1 * labelled)}/{labelled} of the labels"))
    if evaluation.agreement_with_float is not None:
        same = round(evaluation.agreement_with_float * evaluation.images)
        error = f"largest logit error {evaluation.max_logit_error:.3g}"
        rows.append(("float network", f"same top-1 on {same}/{evaluation.images}, {error}"))
    rows.append(("outputs", f"sha256 {evaluation.outputs_sha256[:32]}"))
    rows.append(("platform", "simulation: no TEE, and the device shares the trusted process"))
    for name, text in rows:
        grid.add_row(f"[bold]{name}[/bold]", text)
    return grid


_SEEN = {
    "device": "everything, and nothing holds it to the truth",
    "enclave": "nothing",
    "verified": "every activation",
    "blinded": "uniform noise",
    "private": "uniform noise",
}
