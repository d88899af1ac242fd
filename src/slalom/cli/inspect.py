"""`slalom inspect PLAN`: what a plan holds, proves and costs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from slalom.bench.memory import link_memory, trusted_memory
from slalom.cli.inspect_view import Inspection, inspection_document, print_inspection
from slalom.cli.screen import guarded, print_json, waiting
from slalom.plan import Plan
from slalom.plan.cost import step_costs
from slalom.plan.footprint import gpu_footprint
from slalom.plan.mask_cost import mask_cost
from slalom.trusted.policy import Policy, Protection, parse_policy

LINK_IMAGES = 16
LINK_MICRO_BATCHES = 2  # as a session has by default


@guarded
def inspect_command(
    plan_file: Annotated[Path, typer.Argument(metavar="PLAN", help="a .slalom file")],
    check: Annotated[str, typer.Option(help="direct, batched or preprocessed")] = "preprocessed",
    rounds: Annotated[int, typer.Option(help="independent checks of every linear result")] = 1,
    json: Annotated[bool, typer.Option("--json", help="JSON on stdout")] = False,
) -> None:
    """Show the steps of a plan: shapes, work, bits, range proofs, bytes, soundness, memory."""
    policy = parse_policy("private", check, rounds, "ahead")
    with waiting(f"reading {plan_file}"):
        plan = Plan.load(plan_file)
        levels = [Policy(level, policy.check, policy.rounds) for level in Protection if level is not Protection.DEVICE]
        memory = {level.protection: trusted_memory(plan, level) for level in levels}
        link = link_memory(plan, LINK_IMAGES, LINK_MICRO_BATCHES)
        found = Inspection(plan, policy, step_costs(plan), memory, link, gpu_footprint(plan), mask_cost(plan))
    if json:
        print_json(inspection_document(found))
    else:
        print_inspection(found)
