"""Making the masks of many images ahead, timed: what a mask bank can deliver on this machine."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from slalom.arithmetic.dispatch import Dispatch
from slalom.arithmetic.engine import make_engine
from slalom.isolation.secret import SecretMemory
from slalom.plan import Plan
from slalom.plan.mask_cost import MaskCost, mask_cost
from slalom.trusted.bank import MaskBank, MaskBankOptions
from slalom.trusted.masks import MaskMaker, prepare_maps
from slalom.trusted.model import make_model
from slalom.trusted.randomness import Randomness
from slalom.trusted.vault import make_vault


@dataclass(frozen=True)
class MasksFound:
    """Seconds for `images` masks made, of which `spilled` were sealed outside, and for opening those again."""

    images: int
    spilled: int
    sealed_bytes: int
    seconds: float
    opened_seconds: float
    cost: MaskCost
    isa: str

    @property
    def images_per_second(self) -> float:
        """Made, and sealed where need be."""
        return self.images / self.seconds

    @property
    def products_per_second(self) -> float:
        """Of int8 numbers: four for each weight and masked word."""
        return self.cost.products * self.images / self.seconds


def measure_masks(
    plan: Plan, dispatch: Dispatch, images: int, batch: int, memory: int, spill: Path | None,
    progress: Callable[[int], None],
) -> MasksFound:  # fmt: skip
    """Makes the masks of `images`, `batch` at a time, as a session would; opens what was spilled; and destroys all.

    Beyond `memory` bytes they are sealed in the folder `spill`; without one, a batch's masks are destroyed once made.
    """
    model, engine, randomness = make_model(plan), make_engine(dispatch), Randomness(SecretMemory)
    maker = MaskMaker(model, engine, prepare_maps(engine, model, plan), randomness, dispatch)
    options = MaskBankOptions(request=batch, target=max(images, batch), memory=memory, spill=spill)
    vault = None if spill is None else make_vault(spill, bytes.fromhex(plan.digest), SecretMemory)
    bank = MaskBank(maker, options, vault)
    try:
        seconds = 0.0
        for first in range(0, images, batch):
            begin = time.perf_counter()
            bank.prepare(min(batch, images - first))
            seconds += time.perf_counter() - begin
            progress(min(batch, images - first))
            if vault is None:
                bank.drop_ready()  # off the clock: a session uses masks, and overwrites only those it gives up
        figures = bank.figures
        bank.drop_ready()
        begin = time.perf_counter()
        while left := bank.figures.spilled_images:
            for masks in bank.reserve([min(batch, left)], 1.0):
                masks.destroy()
        opened = time.perf_counter() - begin
    finally:
        bank.destroy()
        randomness.destroy()
    return MasksFound(
        images, figures.spilled_images, figures.spilled_bytes, seconds, opened, mask_cost(plan), engine.isa.value
    )
