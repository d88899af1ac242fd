"""`slalom inspect PLAN`: what a plan holds, proves and costs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from slalom.bench.memory import TrustedMemory, trusted_memory
from slalom.cli.screen import data_console, guarded, print_json, readable_bytes
from slalom.plan import Plan
from slalom.plan.cost import StepCost, step_costs
from slalom.trusted.policy import Policy, Protection, parse_policy
from slalom.trusted.soundness import bits, check_error, union_error


@guarded
def inspect_command(
    plan_file: Annotated[Path, typer.Argument(metavar="PLAN", help="a .slalom file")],
    check: Annotated[str, typer.Option(help="direct, batched or preprocessed")] = "preprocessed",
    rounds: Annotated[int, typer.Option(help="independent checks of every linear result")] = 1,
    json: Annotated[bool, typer.Option("--json", help="JSON on stdout")] = False,
) -> None:
    """Show the steps of a plan: shapes, work, bits, range proofs, bytes, soundness, memory."""
    policy = parse_policy("private", check, rounds, "ahead")
    plan = Plan.load(plan_file)
    costs = step_costs(plan)
    levels = [level for level in Protection if level is not Protection.DEVICE]
    memory = {level.value: trusted_memory(plan, Policy(level, policy.check, policy.rounds)) for level in levels}
    if json:
        print_json(_document(plan, costs, policy, memory))
        return
    console = data_console()
    console.print(_steps_table(plan, costs, policy))
    console.print(_totals(plan, costs, policy, memory))


def _document(
    plan: Plan, costs: tuple[StepCost, ...], policy: Policy, memory: dict[str, TrustedMemory]
) -> dict[str, Any]:
    linear = sum(cost.kind == "Linear" for cost in costs)
    return {
        "model": plan.graph.model,
        "plan_digest": plan.digest,
        "check": policy.check.value,
        "rounds": policy.rounds,
        "linear_steps": linear,
        "soundness_bits_per_check": bits(check_error(policy)),
        "soundness_bits_per_image": bits(union_error(policy, linear, 1)),
        "multiply_accumulates": sum(cost.multiply_accumulates for cost in costs),
        "bytes_to_device_per_image": sum(cost.bytes_to_device for cost in costs),
        "bytes_from_device_per_image": sum(cost.bytes_from_device for cost in costs),
        "memory": {
            level: {
                "steady_bytes": item.steady_total,
                "steady_by_kind": dict(item.steady),
                "in_flight_bytes_per_image": item.in_flight,
                "peak_bytes": item.peak,
            }
            for level, item in memory.items()
        },
        "steps": [
            {
                "name": cost.name,
                "kind": cost.kind,
                "shape": list(cost.shape),
                "multiply_accumulates": cost.multiply_accumulates,
                "bits": cost.bits,
                "range_slack_bits": cost.slack_bits,
                "bytes_from_device": cost.bytes_from_device,
                "bytes_to_device": cost.bytes_to_device,
                "soundness_bits": bits(check_error(policy)) if cost.kind == "Linear" else None,
            }
            for cost in costs
        ],
    }


def _steps_table(plan: Plan, costs: tuple[StepCost, ...], policy: Policy) -> Table:
    table = Table(title=f"{plan.graph.model}  {plan.digest[:16]}", title_justify="left")
    table.add_column("step", overflow="fold")
    table.add_column("kind")
    for name in ("shape", "MMAC", "bits", "slack", "down", "up", "soundness"):
        table.add_column(name, justify="right", no_wrap=True)
    sound = f"{bits(check_error(policy)):.1f}"
    for cost in costs:
        table.add_row(
            cost.name,
            cost.kind,
            "x".join(map(str, cost.shape)),
            f"{cost.multiply_accumulates / 1e6:.2f}" if cost.multiply_accumulates else "",
            "" if cost.bits is None else str(cost.bits),
            "" if cost.slack_bits is None else f"{cost.slack_bits:.2f}",
            readable_bytes(cost.bytes_from_device) if cost.bytes_from_device else "",
            readable_bytes(cost.bytes_to_device) if cost.bytes_to_device else "",
            sound if cost.kind == "Linear" else "",
        )
    return table


def _totals(plan: Plan, costs: tuple[StepCost, ...], policy: Policy, memory: dict[str, TrustedMemory]) -> Table:
    linear = sum(cost.kind == "Linear" for cost in costs)
    work = sum(cost.multiply_accumulates for cost in costs)
    down = readable_bytes(sum(cost.bytes_from_device for cost in costs))
    up = readable_bytes(sum(cost.bytes_to_device for cost in costs))
    grid = Table.grid(padding=(0, 2))
    grid.add_row("[bold]linear steps[/bold]", f"{linear}, {work / 1e9:.3f} GMAC an image")
    grid.add_row("[bold]across the boundary[/bold]", f"{down} down, {up} up an image (private)")
    grid.add_row(
        "[bold]soundness[/bold]",
        f"{policy.check}, {policy.rounds} round(s): {bits(check_error(policy)):.1f} bits a check, "
        f"{bits(union_error(policy, linear, 1)):.1f} an image",
    )
    for level, item in memory.items():
        kinds = ", ".join(f"{kind} {readable_bytes(size)}" for kind, size in item.steady.items() if size)
        grid.add_row(
            f"[bold]memory, {level}[/bold]",
            f"{readable_bytes(item.steady_total)} steady ({kinds}), {readable_bytes(item.in_flight)} more an image "
            f"in flight, {readable_bytes(item.peak)} peak",
        )
    grid.add_row("[bold]digest[/bold]", plan.digest)
    return grid
