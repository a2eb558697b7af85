"""Two runs' tensors beside each other: all of their numbers, a part of them at a time.

A row of an embedding is one of thousands: what is different in it alone is not at regular places.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from lockstep.record.writer import sketch
from lockstep.trace.matching import Match
from lockstep.trace.reading import MOST, Array, Update

# How many numbers of a tensor are looked at at once.
PART = 2**18


@dataclass(frozen=True, eq=False)
class Both:
    """A tensor in two runs, of one shape, as the files have it, and what each is multiplied with.

    Goes through both in float64, a part at a time.
    """

    first: Array
    second: Array
    weights: tuple[float, float] = (1.0, 1.0)

    def __iter__(self) -> Iterator[tuple[Array, Array]]:
        for first, second in parts(self.first, self.second):
            yield (
                np.multiply(first, self.weights[0], dtype=np.float64, order="C"),
                np.multiply(second, self.weights[1], dtype=np.float64, order="C"),
            )

    @property
    def turned(self) -> Both:
        """The second beside the first."""
        return Both(self.second, self.first, self.weights[::-1])

    @property
    def sampled(self) -> tuple[Array, Array]:
        """Both at regular places, MOST of them."""
        first, second = sampled(self.first), sampled(self.second)
        return self.weights[0] * first, self.weights[1] * second

    def apart(self, factor: float) -> float:
        """The norm of the second less so many times the first."""
        rest = (second - factor * first for first, second in self)
        return math.sqrt(sum(squared(each) for each in rest))


@dataclass(frozen=True)
class Products:
    """Of x and y of a tensor: x x, y y, x (y - x), and (y - x) (y - x).

    What is nearly the same in both is known to all digits from their difference.
    """

    first: float
    second: float
    mixed: float
    apart: float

    @property
    def factor(self) -> float:
        """How many times x y is."""
        return 1.0 + self.mixed / self.first

    @property
    def rest(self) -> float:
        """The norm of what is left of y then."""
        return math.sqrt(max(self.apart - self.mixed**2 / self.first, 0.0))


def products(both: Both) -> Products:
    """The products of a tensor in two runs."""
    sums = np.zeros(4)
    for first, second in both:
        apart = second - first
        sums += squared(first), squared(second), dot(first, apart), squared(apart)
    return Products(*sums.tolist())


def whole(
    update: Update,
    other: Update,
    match: Match,
    phase: str,
    other_phase: str | None = None,
    weights: tuple[float, float] = (1.0, 1.0),
) -> Both | None:
    """A tensor in a phase of two runs' updates; None if one lacks it, or shows another part."""
    there = phase if other_phase is None else other_phase
    first, second = stored(update, phase, match.name), arranged(other, there, match)
    if first is None or second is None:
        return None
    if first.shape != second.shape:  # a recorder may have kept a sketch alone, in one of the runs
        first, second = sketch(first), sketch(second)
    if first.shape != second.shape:
        return None
    scales = update.scale(phase), other.scale(there)
    return Both(first, second, (weights[0] / scales[0], weights[1] / scales[1]))


def parts(*arrays: Array) -> Iterator[list[Array]]:
    """Arrays of one shape, the same part of each at a time."""
    every = [np.atleast_1d(each) for each in arrays]
    length = len(every[0])
    rows = max(1, PART * length // max(every[0].size, 1))
    for begin in range(0, length, rows):
        yield [each[begin : begin + rows] for each in every]


def arranged(update: Update, phase: str, match: Match) -> Array | None:
    """The other side's array in a phase, as this side's tensor, all of it that was recorded."""
    arrays = [stored(update, phase, name) for name in match.others]
    kept = any(f"{phase}|{name}" in update.facts["sizes"] for name in match.others)
    known = [each for each in arrays if each is not None]
    return match.arranged(known, kept) if len(known) == len(arrays) else None


def stored(update: Update, phase: str, name: str) -> Array | None:
    """An array as the file has it; None where there is none."""
    return update.stored(phase, name) if name in update.phases.get(phase, ()) else None


def still_at(updates: Iterable[Update], name: str, places: Array) -> bool:
    """Whether some numbers of a tensor never move, as rows that pad a vocabulary need not."""
    seen = [(stored(each, "before", name), stored(each, "after", name)) for each in updates]
    whole = [
        (before.ravel()[places], after.ravel()[places])
        for before, after in seen
        if before is not None and after is not None and before.size > places.max() < after.size
    ]
    return bool(whole) and all(np.array_equal(before, after) for before, after in whole)


def sampled(array: Array) -> Array:
    """An array at regular places, MOST of them, in float64."""
    return (sketch(array, MOST) if array.size > MOST else array).astype(np.float64)


def dot(one: Array, other: Array) -> float:
    """The sum of the products of two arrays' numbers."""
    return float(one.ravel() @ other.ravel())


def squared(array: Array) -> float:
    """The sum of an array's squares."""
    return dot(array, array)
