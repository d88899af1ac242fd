"""The field F_p in which claims are checked, with p as a parameter so that a tiny field can be tested statistically."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from random import Random

import numpy as np

from reference.linear import Integers
from slalom.errors import ApiMisuse
from slalom.plan.steps import Shape

P = 2**51 - 129


@dataclass(frozen=True)
class Field:
    """The integers modulo a prime, and where its random elements come from (`secrets.SystemRandom` outside tests)."""

    random: Random
    modulus: int = P

    def __post_init__(self) -> None:
        fermat = (pow(base, self.modulus - 1, self.modulus) for base in (2, 3, 5, 7) if base < self.modulus)
        if self.modulus < 2 or any(power != 1 for power in fermat):
            raise ApiMisuse(f"{self.modulus} is not a prime")

    def draw(self, shape: Shape) -> Integers:
        """Uniform elements in 0..p-1, exact: `randrange` rejects instead of folding."""
        count = int(np.prod(shape))
        return np.array([self.random.randrange(self.modulus) for _ in range(count)], dtype=object).reshape(shape)

    def reduce(self, values: Integers) -> Integers:
        """Integers, signed too, as elements in 0..p-1."""
        return np.asarray(values.astype(object) % self.modulus)

    def dot(self, a: Integers, b: Integers) -> int:
        """<a, b> for two arrays of one shape; the integers may be of any size and sign."""
        pairs: Iterable[tuple[int, int]] = zip(a.ravel().tolist(), b.ravel().tolist(), strict=True)
        return sum(u * v for u, v in pairs) % self.modulus
