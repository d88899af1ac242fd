"""What `slalom inspect` shows: tables of steps and of memory with the totals, or a document of the same."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rich.table import Table
from rich.text import Text

from slalom.bench.memory import LinkMemory, TrustedMemory
from slalom.cli.screen import data_console, plain_table, printable, readable_bytes
from slalom.plan import Plan
from slalom.plan.cost import StepCost
from slalom.plan.footprint import Footprint
from slalom.plan.mask_cost import MaskCost
from slalom.reporting import DEALER_TRUST
from slalom.trusted.policy import Policy, Protection
from slalom.trusted.soundness import bits, check_error, union_error

_KINDS = ("parameters", "weights", "probes", "probe_images")


@dataclass(frozen=True)
class Inspection:
    """A plan, what its steps cost, what the trusted side holds at each level under the check of `policy`, and what it
    shares with a worker."""

    plan: Plan
    policy: Policy
    costs: tuple[StepCost, ...]
    memory: Mapping[Protection, TrustedMemory]
    link: LinkMemory
    gpu: Footprint
    masks: MaskCost

    @property
    def linear_steps(self) -> int:
        """How many results a device answers and a check covers."""
        return sum(cost.kind == "Linear" for cost in self.costs)

    @property
    def bits_per_check(self) -> float:
        """-log2 of the probability that a wrong result of one step passes."""
        return bits(check_error(self.policy))

    @property
    def bits_per_image(self) -> float:
        """The same for any of an image's steps."""
        return bits(union_error(self.policy, self.linear_steps, 1))


def inspection_document(found: Inspection) -> dict[str, Any]:
    """Bytes and multiply-accumulates are those of one image; null has no meaning for that step."""
    costs = found.costs
    return {
        "model": found.plan.graph.model,
        "plan_digest": found.plan.digest,
        "check": found.policy.check.value,
        "rounds": found.policy.rounds,
        "linear_steps": found.linear_steps,
        "soundness_bits_per_check": found.bits_per_check,
        "soundness_bits_per_image": found.bits_per_image,
        "multiply_accumulates": sum(cost.multiply_accumulates for cost in costs),
        "bytes_to_device_per_image": sum(cost.bytes_to_device for cost in costs),
        "bytes_from_device_per_image": sum(cost.bytes_from_device for cost in costs),
        "memory": {
            level.value: {
                "steady_bytes": item.steady_total,
                "steady_by_kind": dict(item.steady),
                "in_flight_bytes_per_image": item.in_flight,
                "peak_bytes": item.peak,
            }
            for level, item in found.memory.items()
        },
        "link": {
            "images": found.link.images,
            "micro_batches": found.link.micro_batches,
            "cpu_bytes": found.link.cpu,
            "cuda_bytes": found.link.cuda,
        },
        "masks_per_image": {
            "mask_bytes": found.masks.masks,
            "mask_image_bytes": found.masks.images,
            "int8_products": found.masks.products,
        },
        "dealer": {
            "seed_bytes_per_micro_batch": found.masks.seeds,
            "mask_image_bytes_per_image": found.masks.images,
            "trust": f"a dealer {DEALER_TRUST}",
        },
        "gpu": {
            "images": found.link.images,
            "weights_bytes": found.gpu.weights,
            "bytes": found.gpu.total(found.link.images),
        },
        "steps": [_step(found, cost) for cost in costs],
    }


def _step(found: Inspection, cost: StepCost) -> dict[str, Any]:
    return {
        "name": cost.name,
        "kind": cost.kind,
        "shape": list(cost.shape),
        "multiply_accumulates": cost.multiply_accumulates,
        "bits": cost.bits,
        "range_slack_bits": cost.slack_bits,
        "bytes_from_device": cost.bytes_from_device,
        "bytes_to_device": cost.bytes_to_device,
        "soundness_bits": found.bits_per_check if cost.kind == "Linear" else None,
    }


def print_inspection(found: Inspection) -> None:
    """The tables, on stdout."""
    console = data_console()
    console.print(Text(printable(found.plan.graph.model), style="bold"))
    console.print(steps_table(found))
    console.print("↓ claims from the device, ↑ what it is given; slack: bits above the proved sum\n")
    console.print(totals_grid(found))
    console.print(Text("\ntrusted memory", style="bold"))
    console.print(memory_table(found.memory))
    console.print("in flight: more for each image in flight; at peak: with the plan, temporaries left out")
    masks = found.masks
    console.print(
        f"masks of blinded and private: {readable_bytes(masks.total)} an image, {readable_bytes(masks.masks)} of masks "
        f"and {readable_bytes(masks.images)} of their images, made by {masks.products / 1e9:.1f} G products of int8"
    )
    console.print(
        f"a dealer is given {readable_bytes(masks.seeds)} of seeds a micro-batch, gives {readable_bytes(masks.images)} "
        f"an image, and {DEALER_TRUST}"
    )
    link = found.link
    console.print(
        f"shared with a worker: {readable_bytes(link.cpu)}, or {readable_bytes(link.cuda)} where it has a GPU; for "
        f"{link.micro_batches} micro-batches of {link.images} images in flight"
    )
    console.print(
        f"of a GPU's memory: up to {readable_bytes(found.gpu.total(link.images))} for micro-batches of {link.images} "
        f"images, {readable_bytes(found.gpu.weights)} of it for weights"
    )


def steps_table(found: Inspection) -> Table:
    """One row a step. Claims come down from the device, activations or blinded words go up to it."""
    table = plain_table(("step", "kind"), ("shape", "MMAC", "bits", "slack", "crosses", "sound"))
    for cost in found.costs:
        table.add_row(
            Text(printable(cost.name)),
            cost.kind.lower(),
            "x".join(map(str, cost.shape)),
            f"{cost.multiply_accumulates / 1e6:.2f}" if cost.multiply_accumulates else "",
            "" if cost.bits is None else str(cost.bits),
            "" if cost.slack_bits is None else f"{cost.slack_bits:.2f}",
            _crossing(cost),
            f"{found.bits_per_check:.1f}" if cost.kind == "Linear" else "",
        )
    return table


def _crossing(cost: StepCost) -> str:
    ways = ((cost.bytes_from_device, "↓"), (cost.bytes_to_device, "↑"))
    return ", ".join(f"{readable_bytes(size)} {way}" for size, way in ways if size)


def totals_grid(found: Inspection) -> Table:
    """Names and values, one figure a line."""
    costs, policy = found.costs, found.policy
    work = sum(cost.multiply_accumulates for cost in costs)
    down = readable_bytes(sum(cost.bytes_from_device for cost in costs))
    up = readable_bytes(sum(cost.bytes_to_device for cost in costs))
    rounds = f"{policy.rounds} round{'s' if policy.rounds > 1 else ''}"
    grid = Table.grid(padding=(0, 2))
    grid.add_column(no_wrap=True, style="bold")
    grid.add_column(overflow="fold")
    grid.add_row("digest", found.plan.digest)
    grid.add_row("linear steps", f"{found.linear_steps}, {work / 1e9:.3f} GMAC an image")
    grid.add_row("crosses", f"{down} down, {up} up an image (private)")
    grid.add_row(
        "soundness",
        f"{found.bits_per_check:.1f} bits a check, {found.bits_per_image:.1f} an image; {policy.check}, {rounds}",
    )
    return grid


def memory_table(memory: Mapping[Protection, TrustedMemory]) -> Table:
    """One row a level: what is held between requests by kind and in all, and what is held for a while."""
    kinds = tuple(kind.replace("_", "\n") for kind in _KINDS)
    table = plain_table(("level",), (*kinds, "steady", "in flight", "at peak"))
    table.columns[0].no_wrap = True
    for level, item in memory.items():
        sizes = (*(item.steady.get(kind, 0) for kind in _KINDS), item.steady_total, item.in_flight, item.peak)
        table.add_row(level.value, *(readable_bytes(size) if size else "-" for size in sizes))
    return table
