"""What `slalom eval` shows: a table of images and a list of figures, or a document of the same."""

from __future__ import annotations

import dataclasses
from typing import Any

from rich.table import Table
from rich.text import Text

from slalom.bench.evaluate import Evaluation, Prediction
from slalom.bench.memory import trusted_memory
from slalom.cli.network import Network
from slalom.cli.screen import (
    data_console,
    plain_table,
    platform_of,
    printable,
    readable_bytes,
    readable_seconds,
)
from slalom.fleet.roster import SPAWN
from slalom.reporting import DEALER_ON_THIS_MACHINE, DEALER_TRUST, Worker
from slalom.trusted.bank import MaskFigures
from slalom.trusted.policy import Policy, Protection

_SEEN = {
    Protection.DEVICE: "everything, and nothing holds it to the truth",
    Protection.ENCLAVE: "nothing",
    Protection.VERIFIED: "every activation",
    Protection.BLINDED: "uniform noise",
    Protection.PRIVATE: "uniform noise",
}


def evaluation_document(network: Network, policy: Policy, evaluation: Evaluation) -> dict[str, Any]:
    """Everything known of an evaluation. Seconds and bytes are those of the whole run; null is not known."""
    report = evaluation.report
    checked = policy.protection.checked
    return {
        "model": network.plan.graph.model,
        "plan_digest": network.plan.digest,
        "weights": network.origin,
        "protection": policy.protection.value,
        "check": policy.check.value if checked else None,
        "rounds": policy.rounds if checked else 0,
        "schedule": policy.schedule.value,
        "platform": platform_of(evaluation.workers),
        "tee": "none (simulation)",
        "workers": [dataclasses.asdict(worker) for worker in evaluation.workers],
        "dealers": [dataclasses.asdict(dealer) for dealer in evaluation.dealers],
        "incidents": [dataclasses.asdict(incident) for incident in report.incidents],
        "soundness_bits": report.soundness_bits,
        "images": evaluation.images,
        "images_per_second": evaluation.images_per_second,
        "seconds": evaluation.seconds,
        "setup_seconds": report.setup_seconds,
        "trusted_seconds": report.trusted_seconds,
        "device_seconds": report.device_seconds,
        "mask_seconds": report.mask_seconds,
        "masks": dataclasses.asdict(report.masks),
        "bytes_to_device": report.bytes_to_device,
        "bytes_from_device": report.bytes_from_device,
        "bytes_to_dealer": report.bytes_to_dealer,
        "bytes_from_dealer": report.bytes_from_dealer,
        "agreement_with_float": evaluation.agreement_with_float,
        "max_logit_error": evaluation.max_logit_error,
        "top1": evaluation.top1,
        "outputs_sha256": evaluation.outputs_sha256,
        "memory": _memory(network, policy, evaluation),
        "predictions": [_prediction(network, item) for item in evaluation.predictions],
    }


def _memory(network: Network, policy: Policy, evaluation: Evaluation) -> dict[str, Any]:
    report = evaluation.report
    return {
        "trusted_steady_bytes": _steady(evaluation),
        "trusted_steady_by_kind": dict(report.steady_bytes),
        "trusted_peak_bytes": _peak(network, policy, evaluation),
        "in_flight_peak_bytes": report.peak_in_flight_bytes,
        "process_resident_bytes": evaluation.resident_bytes,
        "process_peak_resident_bytes": evaluation.peak_resident_bytes,
    }


def _steady(evaluation: Evaluation) -> int:
    return sum(evaluation.report.steady_bytes.values())


def _peak(network: Network, policy: Policy, evaluation: Evaluation) -> int:
    """The most of two moments: set-up, with the weights (predicted), and a request, with values in flight (counted)."""
    in_a_request = _steady(evaluation) + evaluation.report.peak_in_flight_bytes
    return max(trusted_memory(network.plan, policy).peak, in_a_request)


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


def print_evaluation(network: Network, policy: Policy, evaluation: Evaluation) -> None:
    """The table of images and the figures, on stdout."""
    console = data_console()
    model = printable(network.plan.graph.model)
    console.print(Text(f"{model} in {policy.protection} (simulation)", style="bold"))
    console.print(predictions_table(network, evaluation))
    console.print()
    console.print(figures_grid(network, policy, evaluation))


def predictions_table(network: Network, evaluation: Evaluation) -> Table:
    """A row for each image. A wrong answer shows the right one, in yellow; agreement is marked and not repeated."""
    table = plain_table((), ())
    table.add_column("image", overflow="ellipsis", no_wrap=True, max_width=32)
    table.add_column("predicted", overflow="fold")
    table.add_column("confidence", justify="right", no_wrap=True)
    table.add_column("label", overflow="fold")
    table.add_column("float", overflow="fold")
    for item in evaluation.predictions:
        table.add_row(
            Text(printable(item.name)),
            Text(printable(_class_name(network, item.predicted))),
            f"{item.confidence:.0%}",
            _compared(network, item.label, item.predicted),
            _compared(network, item.float_predicted, item.predicted),
            style="yellow" if item.label not in (None, item.predicted) else None,
        )
    return table


def _compared(network: Network, other: int | None, predicted: int) -> Text:
    if other is None:
        return Text("-")
    return Text("same" if other == predicted else printable(_class_name(network, other)))


def figures_grid(network: Network, policy: Policy, evaluation: Evaluation) -> Table:
    """Names and values, one figure a line."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(no_wrap=True, style="bold")
    grid.add_column(overflow="fold")
    for name, text in (
        *_protection_rows(network, policy, evaluation),
        *_cost_rows(network, policy, evaluation),
        *_answer_rows(evaluation),
    ):
        grid.add_row(name, Text(printable(text)))
    return grid


def _protection_rows(network: Network, policy: Policy, evaluation: Evaluation) -> list[tuple[str, str]]:
    rounds = f"{policy.rounds} round{'s' if policy.rounds > 1 else ''}"
    checked = f"{evaluation.report.soundness_bits:.1f} bits over this run; {policy.check} check, {rounds}"
    return [
        ("plan", network.plan.digest[:32]),
        ("weights", network.origin),
        ("soundness", checked if policy.protection.checked else "none: nothing is checked"),
        ("the device saw", _SEEN[policy.protection]),
        ("platform", platform_of(evaluation.workers)),
        *(("isolation", f"{worker.name}: {worker.isolation}") for worker in evaluation.workers),
        *(("dealer", f"{dealer.name}: {_dealer_text(dealer, evaluation)}") for dealer in evaluation.dealers),
    ]


def _dealer_text(dealer: Worker, evaluation: Evaluation) -> str:
    report = evaluation.report
    gave = f"given {readable_bytes(report.bytes_to_dealer)}, gave {readable_bytes(report.bytes_from_dealer)}"
    here = f"; {DEALER_ON_THIS_MACHINE}" if dealer.name == SPAWN else ""
    return f"{DEALER_TRUST}; {gave}{here}"


def _bank_rows(masks: MaskFigures) -> list[tuple[str, str]]:
    """What is worth knowing of a bank that was used, or that lost masks."""
    lost = f"; {masks.lost_images} LOST: what was spilled had been changed" if masks.lost_images else ""
    waited = f", waited for {readable_seconds(masks.waited_seconds)}" if masks.waited_seconds >= 0.001 else ""
    left = f"{masks.ready_images + masks.spilled_images} left, {masks.spilled_images} of them outside"
    used = masks.waited_seconds or masks.ready_images or masks.spilled_images or masks.lost_images
    return [("mask bank", f"{masks.used_images} images used{waited}; {left}{lost}")] if used else []


def _cost_rows(network: Network, policy: Policy, evaluation: Evaluation) -> list[tuple[str, str]]:
    report = evaluation.report
    images = f"{evaluation.images} image{'s' if evaluation.images > 1 else ''}"
    speed = f"{evaluation.images_per_second:.1f} images/s"
    busy = f"trusted {readable_seconds(report.trusted_seconds)}, device {readable_seconds(report.device_seconds)}"
    ahead = f"set-up {readable_seconds(report.setup_seconds)}, masks {readable_seconds(report.mask_seconds)}"
    sent, received = readable_bytes(report.bytes_to_device), readable_bytes(report.bytes_from_device)
    peak = readable_bytes(_peak(network, policy, evaluation))
    return [
        *_bank_rows(report.masks),
        ("speed", f"{images} in {readable_seconds(evaluation.seconds)}, {speed}"),
        ("busy", busy),
        ("made ahead", ahead),
        ("bytes", f"{sent} to the device, {received} from it"),
        ("trusted memory", f"{readable_bytes(_steady(evaluation))} steady, {peak} at its peak"),
    ]


def _answer_rows(evaluation: Evaluation) -> list[tuple[str, str]]:
    rows = []
    if evaluation.top1 is not None:
        labelled = sum(item.label is not None for item in evaluation.predictions)
        rows.append(("top-1", f"{round(evaluation.top1 * labelled)}/{labelled} of the labels"))
    if evaluation.agreement_with_float is not None:
        same = round(evaluation.agreement_with_float * evaluation.images)
        error = f"largest logit error {evaluation.max_logit_error:.3g}"
        rows.append(("float network", f"same top-1 on {same}/{evaluation.images}, {error}"))
    return [*rows, ("outputs", f"sha256 {evaluation.outputs_sha256[:32]}")]
