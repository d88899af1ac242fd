"""Lies that are the truth about another network, another arithmetic or another input."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from slalom.arithmetic.linear import Words
from slalom.attacks.cheat import CheatingDevice, Claimed, ValueCheat
from slalom.device.engine import PreparedMaps
from slalom.plan import Plan
from slalom.plan.steps import Dense, Linear, LinearMap


class WrongWeights(ValueCheat):
    """Computes the step with one weight changed by one."""

    _wrong: PreparedMaps | None = None

    def load(self, plan: Plan) -> None:
        """As an honest device; one weight of the target's last map, by the seed, goes towards zero (or from it)."""
        super().load(plan)
        step = self.loaded.linear_steps[self.target]
        name = step.maps[-1].weight
        weight = plan.tensors[name].copy()
        place = int(self.random.integers(weight.size))
        weight.reshape(-1)[place] += -1 if weight.reshape(-1)[place] > 0 else 1
        shape = plan.types[step.source].shape
        self._wrong = self.engine.prepare(step.maps, {**plan.tensors, name: weight}, shape)

    def lie(self, step: Linear, words: Words, honest: Claimed) -> Claimed:
        """The other network's words."""
        return honest if self._wrong is None else self.engine.apply(self._wrong, words)


class FloatArithmetic(ValueCheat):
    """Computes the step in float32, as a common framework would; where that is exact, one element is off by one."""

    def lie(self, step: Linear, words: Words, honest: Claimed) -> Claimed:
        """The rounded sums: exact below 2^24 only."""
        values = torch.from_numpy(words.astype(np.float32))
        with torch.inference_mode():
            for linear_map in step.maps:
                weight = torch.from_numpy(self.loaded.plan.tensors[linear_map.weight].astype(np.float32))
                values = _apply_float(linear_map, weight, values)
            # |sums| of a few maps on 32-bit words may pass 2^63, where the conversion has no meaning: any words will do
            result: Claimed = values.to(torch.int64).to(torch.int32).contiguous().numpy().reshape(honest.shape)
        return result

    def fall_back(self, honest: Claimed) -> Claimed:
        """The smallest error."""
        return self.change(honest, int(self.random.integers(honest.size)), lambda word: word + 1)


class DifferentInput(CheatingDevice):
    """Answers for an input that differs by one in one element, and goes on from there.

    Every step that reads the target's source answers for the altered one; the first of them may come before it.
    """

    _place = 0

    def load(self, plan: Plan) -> None:
        """As an honest device; chooses the element."""
        super().load(plan)
        shape = plan.types[self.loaded.linear_steps[self.target].source].shape
        self._place = int(self.random.integers(np.prod(shape, dtype=np.int64)))

    def linear(self, step: Linear, words: Words) -> Claimed:
        """The claim of the altered input, in all steps that read the target's source."""
        honest = super().linear(step, words)
        if step.source != self.loaded.linear_steps[self.target].source:
            return honest
        altered = words.copy()
        element = altered.reshape(-1)[self._place]
        altered.reshape(-1)[self._place] += -1 if element > 0 else 1  # towards zero: within every limit
        lie = super().linear(step, altered)
        if step.name != self.target and np.array_equal(lie, honest):
            return honest
        told: Claimed = self.tell(honest, lie)
        return told


def _apply_float(linear_map: LinearMap, weight: Tensor, values: Tensor) -> Tensor:
    if isinstance(linear_map, Dense):
        return values @ weight
    top, bottom, left, right = linear_map.padding
    images = torch.nn.functional.pad(values.movedim(-1, 1), (left, right, top, bottom))
    return torch.nn.functional.conv2d(
        images,
        weight.permute(3, 2, 0, 1),
        stride=linear_map.stride,
        dilation=linear_map.dilation,
        groups=linear_map.groups,
    ).movedim(1, -1)
