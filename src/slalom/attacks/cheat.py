"""A device that computes everything honestly but the claim of one linear step, its target."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slalom.arithmetic.linear import Words
from slalom.device.engine import TorchEngine
from slalom.device.local import LocalDevice
from slalom.errors import ApiMisuse
from slalom.plan import Plan
from slalom.plan.steps import Linear

Claimed = NDArray[np.int32]


@dataclass(frozen=True)
class Choice:
    """Where and how to lie: `seed` fixes elements and bits; `step` names a linear step, None takes the middle one."""

    seed: int = 0
    step: str | None = None


class CheatingDevice(LocalDevice):
    """Lies about one linear step in every request, from request `acts_from` on; `lies` counts the false claims.

    Running ahead it goes on from its own lie, as consistently as a cheat can. A lie that happens to be the truth is
    replaced by a flipped bit, so a request that should hold a lie does.
    """

    acts_from: int = 1

    def __init__(
        self, choice: Choice | None = None, threads: int | None = None, engine: TorchEngine | None = None
    ) -> None:
        super().__init__(threads, engine)
        self.choice = choice or Choice()
        self.random = np.random.default_rng(self.choice.seed)
        self.lies = 0
        self._target: str | None = None

    @property
    def told(self) -> bool:
        """Whether any lie was told."""
        return self.lies > 0

    @property
    def target(self) -> str:
        """The step that is lied about. Raises ApiMisuse before `load`."""
        if self._target is None:
            raise ApiMisuse("the device has no plan", hint="call load first")
        return self._target

    def load(self, plan: Plan) -> None:
        """As an honest device; then chooses the target. Raises ApiMisuse for a step that the plan does not have."""
        super().load(plan)
        self._target = self.choose_step(list(self.loaded.linear_steps))

    def choose_step(self, names: Sequence[str]) -> str:
        """The target among the linear steps, which are in plan order."""
        if self.choice.step is None:
            return names[len(names) // 2]
        if self.choice.step not in names:
            raise ApiMisuse(
                f"there is no linear step {self.choice.step!r:.80} to lie about",
                hint=f"choose one of {', '.join(names)}",
            )
        return self.choice.step

    def tell(self, honest: Claimed, lie: NDArray[Any]) -> NDArray[Any]:
        """The lie, made to differ from the truth, and counted."""
        if np.array_equal(lie, honest):
            lie = self.fall_back(honest)
        self.lies += 1
        return np.ascontiguousarray(lie)

    def fall_back(self, honest: Claimed) -> Claimed:
        """The lie where the intended one is the truth."""
        return self.flip_bit(honest)

    def flip_bit(self, honest: Claimed) -> Claimed:
        """One bit of one element, both by the seed."""
        bit = int(self.random.integers(32))
        return self.change(honest, int(self.random.integers(honest.size)), lambda word: word ^ (1 << bit))

    def change(self, honest: Claimed, position: int, new: Any) -> Claimed:
        """A copy in which the element at a flat position is new(element) mod 2**32."""
        words = honest.copy()
        flat = words.view(np.uint32).reshape(-1)
        flat[position] = new(int(flat[position])) % 2**32
        return words


class ValueCheat(CheatingDevice):
    """Lies with words of the right shape and type."""

    def linear(self, step: Linear, words: Words) -> Claimed:
        """The honest claim, but for the target."""
        honest = super().linear(step, words)
        if step.name != self.target:
            return honest
        lie = self.lie(step, words, honest)
        return honest if lie is None else self.tell(honest, lie)

    def lie(self, step: Linear, words: Words, honest: Claimed) -> Claimed | None:
        """The false claim, of the honest one's shape; None where there is none to tell yet."""
        raise NotImplementedError
