"""Lies that were true once, or are true elsewhere: words of another request or another step."""

from __future__ import annotations

import numpy as np

from slalom.arithmetic.linear import Words
from slalom.attacks.cheat import Choice, Claimed, ValueCheat
from slalom.device.engine import TorchEngine
from slalom.plan import Plan
from slalom.plan.steps import Linear, Shape


class Replay(ValueCheat):
    """Answers every later request with its answer to the first."""

    acts_from = 2
    _kept: Claimed | None = None

    def load(self, plan: Plan) -> None:
        """As an honest device; what was kept is forgotten."""
        super().load(plan)
        self._kept = None

    def lie(self, step: Linear, words: Words, honest: Claimed) -> Claimed | None:
        """The words kept, repeated or cut to the batch that is asked."""
        kept = self._kept
        self._kept = self.keep(kept, honest)
        return None if kept is None else fit(kept, honest.shape)

    def keep(self, kept: Claimed | None, honest: Claimed) -> Claimed:
        """What to keep for the next request."""
        return honest.copy() if kept is None else kept


class LateTruth(Replay):
    """Answers each request with the true words of the one before."""

    def keep(self, kept: Claimed | None, honest: Claimed) -> Claimed:
        """The latest truth."""
        return honest.copy()


class OtherStep(ValueCheat):
    """Answers with the claim of another step: one of equal size if it has seen one, else cut or repeated to fit."""

    def __init__(
        self, choice: Choice | None = None, threads: int | None = None, engine: TorchEngine | None = None
    ) -> None:
        super().__init__(choice, threads, engine)
        self._seen: dict[str, Claimed] = {}

    def load(self, plan: Plan) -> None:
        """As an honest device; what was seen is forgotten."""
        super().load(plan)
        self._seen.clear()

    def linear(self, step: Linear, words: Words) -> Claimed:
        """As every value cheat; the claims of other steps are remembered."""
        claim = super().linear(step, words)
        if step.name != self.target:
            self._seen.pop(step.name, None)
            self._seen[step.name] = claim
        return claim

    def lie(self, step: Linear, words: Words, honest: Claimed) -> Claimed:
        """The latest claim of equal size, else the latest; before any, what another step makes of these words."""
        latest = list(reversed(self._seen.values()))
        equal = [claim for claim in latest if claim.size == honest.size]
        chosen = (equal or latest or [self._compute_other(step, words, honest)])[0]
        return fit(chosen, honest.shape)

    def _compute_other(self, step: Linear, words: Words, honest: Claimed) -> Claimed:
        others = [maps for name, maps in self.loaded.maps.items() if name != step.name]
        if not others:
            return honest
        return self.engine.apply(others[0], fit(words, (len(words), *others[0].input_shape)))


def fit(words: np.ndarray, shape: Shape) -> np.ndarray:
    """The words in order, cut or repeated to `shape`."""
    return np.resize(words, shape)
