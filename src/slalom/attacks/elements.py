"""Lies about one element of a claim, or two."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from slalom.arithmetic.field import P
from slalom.arithmetic.linear import Words
from slalom.attacks.cheat import Claimed, ValueCheat
from slalom.errors import ApiMisuse
from slalom.plan.shapes import Geometry
from slalom.plan.steps import Linear


class FlipElement(ValueCheat):
    """Flips one bit of one element."""

    def lie(self, step: Linear, words: Words, honest: Claimed) -> Claimed:
        """One bit of one element, both by the seed."""
        return self.flip_bit(honest)


class FirstLayer(FlipElement):
    """Flips one bit in the first linear step."""

    def choose_step(self, names: Sequence[str]) -> str:
        """The first."""
        return self._own_step(names[0])

    def _own_step(self, name: str) -> str:
        if self.choice.step not in (None, name):
            raise ApiMisuse(f"this attack lies about step {name!r} alone", hint="choose no step, or flip_element")
        return name


class LastLayer(FirstLayer):
    """Flips one bit in the last linear step."""

    def choose_step(self, names: Sequence[str]) -> str:
        """The last."""
        return self._own_step(names[-1])


class AddHalfRange(ValueCheat):
    """Adds 2^31 to one element: its sign bit, the error that is its own negative mod 2^32."""

    def lie(self, step: Linear, words: Words, honest: Claimed) -> Claimed:
        """One element, by the seed."""
        return self.change(honest, int(self.random.integers(honest.size)), lambda word: word + 2**31)


class AddModulusLow(ValueCheat):
    """Adds the check's prime, cut to 32 bits, to one element."""

    def lie(self, step: Linear, words: Words, honest: Claimed) -> Claimed:
        """One element, by the seed."""
        return self.change(honest, int(self.random.integers(honest.size)), lambda word: word + P)


class Border(ValueCheat):
    """Adds one where the window reaches into the padding, or at the corner where nothing is padded."""

    def lie(self, step: Linear, words: Words, honest: Claimed) -> Claimed:
        """One channel, by the seed, at one border position of one item."""
        geometries = [prepared.geometry for prepared in self.loaded.maps[step.name].maps]
        padded = [geometry for geometry in geometries if any(geometry.padding)]
        rows, columns, channels = geometries[-1].output_image
        row, column = border_position(padded[-1]) if padded else (0, 0)
        image = np.arange(honest.size).reshape(len(honest), rows, columns, channels)
        # a map after the padded one may have made the image smaller
        item, channel = self.random.integers(len(honest)), self.random.integers(channels)
        position = image[item, min(row, rows - 1), min(column, columns - 1), channel]
        return self.change(honest, int(position), lambda word: word + 1)


class OrthogonalOnes(ValueCheat):
    """Adds an error orthogonal to the all-ones probe."""

    def lie(self, step: Linear, words: Words, honest: Claimed) -> Claimed:
        """Two elements of one item: a non-zero e with <e, guess> = 0 mod p, |e| < 2^26."""
        items = honest.reshape(len(honest), -1)
        if items.shape[1] < 2:
            return honest
        guess = self.guess(items.shape[1])
        first, second = (int(place) for place in self.random.choice(items.shape[1], 2, replace=False))
        errors = short_orthogonal(int(guess[first]), int(guess[second]))
        start = int(self.random.integers(len(honest))) * items.shape[1]
        changed = self.change(honest, start + first, lambda word: word + errors[0])
        return self.change(changed, start + second, lambda word: word + errors[1])

    def guess(self, count: int) -> np.ndarray:
        """The probe that is guessed: `count` elements of 1..p-1."""
        return np.ones(count, np.uint64)


class OrthogonalGuess(OrthogonalOnes):
    """Adds an error orthogonal to the probe that NumPy draws from the seed, which is 0 unless told otherwise."""

    def guess(self, count: int) -> np.ndarray:
        """What a trusted side would draw that seeded NumPy with the same number."""
        return np.random.default_rng(self.choice.seed).integers(1, P, count, dtype=np.uint64)


def short_orthogonal(first: int, second: int) -> tuple[int, int]:
    """Integers (a, b), not both zero, with a * first + b * second = 0 mod p and |a|, |b| < 2^26.

    Euclid's algorithm on p and the ratio, stopped half way: remainder = factor * ratio mod p throughout, and
    |factor| * (remainder before) <= p, so the first remainder below 2^26 has |factor| <= p / 2^26 < 2^25.
    """
    ratio = -first * pow(second, -1, P) % P
    before, remainder, factor_before, factor = P, ratio, 0, 1
    while remainder >= 2**26:
        quotient = before // remainder
        before, remainder = remainder, before - quotient * remainder
        factor_before, factor = factor, factor_before - quotient * factor
    return factor, remainder


def border_position(geometry: Geometry) -> tuple[int, int]:
    """An output position one of whose taps lies outside the image; the corner where there is none."""
    rows = [_reaches_out(geometry, 0, index) for index in range(geometry.output_image[0])]
    columns = [_reaches_out(geometry, 1, index) for index in range(geometry.output_image[1])]
    if any(rows):
        return rows.index(True), 0
    return 0, columns.index(True) if any(columns) else 0


def _reaches_out(geometry: Geometry, axis: int, index: int) -> bool:
    start = index * geometry.stride[axis] - geometry.padding[2 * axis]
    stop = start + (geometry.kernel[axis] - 1) * geometry.dilation[axis] + 1
    return start < 0 or stop > geometry.input_image[axis]
