"""`slalom eval MODEL`: a network on photos, at a protection level, beside the float network."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from slalom.arithmetic.dispatch import Isa
from slalom.bench.evaluate import Evaluation, Samples, evaluate, random_samples
from slalom.cli.arguments import parse_isa, require_devices, require_positive
from slalom.cli.evaluate_view import evaluation_document, print_evaluation
from slalom.cli.mask_arguments import MEMORY_GIGABYTES, parse_mask_bank
from slalom.cli.network import NO_PREPROCESSING, PREPROCESSING_HINT, Network, NetworkOptions
from slalom.cli.offline import offline_network
from slalom.cli.screen import guarded, note, print_json, progress_bar, waiting
from slalom.errors import ApiMisuse, InputError, IntegrityError, WireError
from slalom.fleet.roster import IN_PROCESS, SPAWN
from slalom.isolation.level import parse_isolation
from slalom.link.port import DevicePort
from slalom.session import Session
from slalom.trusted.bank import MaskBankOptions
from slalom.trusted.policy import Policy, parse_policy
from slalom.zoo.classes import class_names
from slalom.zoo.photos import Photo, find_photos, load_photo, sample_photos

EVALUATION_SEED = 2
_REFUSED = "no answer was given; the session is over"


@dataclass(frozen=True)
class WorkerRequest:
    """Which workers answer, and how: places, and words that `Session` takes; `timeout_seconds` of silence."""

    devices: list[str]
    on_failure: str
    isolation: str
    bulk: str
    timeout_seconds: float


@dataclass(frozen=True)
class Request:
    """What `eval` was asked to do beside the network and the policy."""

    batch_size: int
    batches: int
    images: Path | None
    attack: str | None
    workers: WorkerRequest
    dealer: str | None
    dealer_device: str
    threads: int | None
    isa: Isa | None
    mask_bank: MaskBankOptions | None


@guarded
def eval_command(
    model: Annotated[str, typer.Argument(help="a name of the zoo, a .slalom file, or package.module:factory")],
    protection: Annotated[str, typer.Option(help="device, enclave, verified, blinded or private")] = "private",
    check: Annotated[str, typer.Option(help="direct, batched or preprocessed")] = "preprocessed",
    rounds: Annotated[int, typer.Option(help="independent checks of every linear result")] = 1,
    schedule: Annotated[str, typer.Option(help="ahead or layerwise, for verified")] = "ahead",
    device: Annotated[
        list[str] | None,
        typer.Option(help="spawn, unix:PATH or tcp:HOST:PORT, once for each worker; cpu: in this process (simulation)"),
    ] = None,
    on_failure: Annotated[str, typer.Option(help="of a worker: fail, retry or enclave")] = "fail",
    isolation: Annotated[
        str, typer.Option(help="of this process and its workers: strict, best-effort or off")
    ] = "best-effort",
    bulk: Annotated[str, typer.Option(help="how arrays cross: auto, memfd, shm or inline")] = "auto",
    timeout: Annotated[float, typer.Option(help="seconds that a worker may be silent")] = 120.0,
    batch_size: Annotated[int, typer.Option(help="images in a request")] = 8,
    batches: Annotated[int, typer.Option(help="requests, at most")] = 4,
    images: Annotated[Path | None, typer.Option(help="a directory of photos")] = None,
    weights: Annotated[Path | None, typer.Option(help="a checkpoint: .pt, .pth or .safetensors")] = None,
    attack: Annotated[str | None, typer.Option(help="let a named cheating device answer")] = None,
    image_size: Annotated[int | None, typer.Option(help="height and width of the input")] = None,
    calibration: Annotated[Path | None, typer.Option(help="a directory of photos to calibrate with")] = None,
    bits: Annotated[int, typer.Option(help="most bits of an activation, 2..15")] = 12,
    threads: Annotated[int | None, typer.Option(help="of the trusted side; all cores by default")] = None,
    isa: Annotated[str | None, typer.Option(help="numpy, portable, avx2, avx512 or amx")] = None,
    mask_bank: Annotated[
        int | None, typer.Option(metavar="IMAGES", help="make masks for so many in the background")
    ] = None,
    mask_memory: Annotated[float, typer.Option(help="gigabytes that waiting masks may take")] = MEMORY_GIGABYTES,
    mask_spill: Annotated[Path | None, typer.Option(help="a folder for masks beyond, sealed")] = None,
    when_empty: Annotated[str, typer.Option(help="a request without masks: wait, compute or fail")] = "wait",
    dealer: Annotated[
        str | None,
        typer.Option(help="another worker that makes mask images, and must not collude with the device: as --device"),
    ] = None,
    dealer_device: Annotated[str, typer.Option(help="what a spawned dealer computes on: cpu or cuda")] = "cpu",
    json: Annotated[bool, typer.Option("--json", help="JSON on stdout")] = False,
) -> None:
    """Run a network on photos at a protection level, and compare it with the float network."""
    workers = WorkerRequest(device or [SPAWN], on_failure, isolation, bulk, timeout)
    policy = parse_policy(protection, check, rounds, schedule)
    require_positive("--batch-size", batch_size)
    bank = parse_mask_bank(mask_bank, batch_size, mask_memory, mask_spill, when_empty, masked=policy.protection.masked)
    request = Request(
        batch_size, batches, images, attack, workers, dealer, dealer_device, threads, parse_isa(isa), bank
    )
    _refuse_nonsense(request, policy)
    photos = None if images is None else find_photos(images)
    with offline_network(model, NetworkOptions(weights, image_size, calibration, bits)) as network:
        samples = _samples(network, photos, request)
        with _open_session(network, policy, request) as session:
            evaluation = _run(session, samples, network, request)
    for incident in evaluation.report.incidents:
        note(f"worker {incident.worker} failed ({incident.error}: {incident.message}): {incident.outcome}")
    if json:
        print_json(evaluation_document(network, policy, evaluation))
    else:
        print_evaluation(network, policy, evaluation)


def _refuse_nonsense(request: Request, policy: Policy) -> None:
    require_positive("--batches", request.batches)
    require_positive("--threads", request.threads)
    require_devices(request.workers.devices)
    if request.dealer is not None:
        require_devices([request.dealer])
    parse_isolation(request.workers.isolation)
    if request.attack is None:
        return
    from slalom.attacks.table import require_attack  # no part of what runs inside a TEE

    require_attack(request.attack)
    if any(device not in (SPAWN, IN_PROCESS) for device in request.workers.devices):
        raise ApiMisuse(
            "an attack is for workers that are started here",
            hint=f"start a cheating one: slalom worker --attack {request.attack} --listen ...",
        )
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
        raise ApiMisuse(NO_PREPROCESSING, hint=PREPROCESSING_HINT)
    found = _sample_photos(network) if photos is None else photos
    if photos is not None and len(found) > most:
        needed = -(-len(found) // request.batch_size)
        note(f"{len(found) - most} of {len(found)} photos left out; --batches {needed} takes them all")
    chosen = found[:most]
    _require_labels_fit(network, chosen)
    arrays = np.stack([load_photo(photo, preprocessing) for photo in chosen])
    return Samples(arrays, tuple(photo.path.name for photo in chosen), tuple(photo.label for photo in chosen))


def _sample_photos(network: Network) -> list[Photo]:
    """The ImageNet photos; their labels mean nothing to a network of other classes."""
    photos = sample_photos()
    if network.plan.graph.classes == class_names("imagenet"):
        return photos
    return [Photo(photo.path) for photo in photos]


def _require_labels_fit(network: Network, photos: list[Photo]) -> None:
    plan = network.plan
    count = math.prod(plan.types[plan.graph.outputs[0].source].shape)
    for photo in photos:
        if photo.label is not None and photo.label >= count:
            raise InputError(
                f"{photo.path.name} is labelled {photo.label}, but the network tells {count} classes apart",
                hint="classes are numbered from 0",
            )


def _open_session(network: Network, policy: Policy, request: Request) -> Session:
    with waiting("preparing the session"):
        return Session(
            network.plan,
            protection=policy.protection,
            check=policy.check,
            rounds=policy.rounds,
            schedule=policy.schedule,
            device=[_place(device, request.attack) for device in request.workers.devices],
            on_failure=request.workers.on_failure,
            isolation=request.workers.isolation,
            bulk=request.workers.bulk,
            timeout_seconds=request.workers.timeout_seconds,
            threads=request.threads,
            isa=request.isa,
            attack=request.attack,
            mask_bank=request.mask_bank,
            dealer=request.dealer,
            dealer_device=request.dealer_device,
        )


def _place(device: str, attack: str | None) -> str | DevicePort:
    """A device in this process that cheats, or the place as it was given: a spawned worker cheats by itself."""
    if device != IN_PROCESS or attack is None:
        return device
    from slalom import attacks

    return attacks.make(attack)


def _run(session: Session, samples: Samples, network: Network, request: Request) -> Evaluation:
    try:
        with progress_bar("images", len(samples.images)) as progress:
            return evaluate(session, samples, request.batch_size, network.float_network, progress)
    except IntegrityError as error:
        if request.attack is None:
            raise
        where = "" if error.step in str(error) else f", at step {error.step!r}"
        message = f"attack {request.attack!r} refused: {error}{where}"
        raise IntegrityError(message, step=error.step, hint=_REFUSED) from error
    except WireError as error:
        if request.attack is None:
            raise
        raise WireError(f"attack {request.attack!r} refused: {error}", hint=_REFUSED) from error
