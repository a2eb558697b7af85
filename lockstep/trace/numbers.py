"""Numbers that a run gives away, each with the error that rounding can have left in it.

A linear relation of recorded arrays is fitted in float64. What each element of it can be off is
known, from the dtype and the sizes of its terms; from that follow how far a coefficient can be from
the true one, and whether what is left over can be rounding.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lockstep.oracle.rounding import PRECISION
from lockstep.oracle.tracked import FORMS

Array = np.ndarray[Any, Any]


# From where on columns count as depending on each other, in a singular value.
DEPENDENT = 1e-13
# What evaluating a relation here rounds.
EVALUATED = 4 * 2.0**-53
# How much more one element of a fit may count than another.
RANGE = 1e-6
# What is no more than this, and than its error, is 0.
NOTHING = 1e-9
# The smallest error of an element, in roundings of a typical one.
LEAST = 1e-2


@dataclass(frozen=True)
class Number:
    """A number that was found, and how far off it may be."""

    value: float
    error: float

    def equals(self, other: Number | float) -> bool:
        """Whether it may be the other one."""
        if not isinstance(other, Number):
            other = Number(other, 0.0)
        return abs(self.value - other.value) <= self.error + other.error

    def over(self, other: Number) -> Number:
        """The quotient of two; of nothing, it may be anything."""
        if not other.value:
            return Number(0.0, math.inf)
        value = self.value / other.value
        error = self.error / abs(other.value) + abs(value) * other.error / abs(other.value)
        return Number(value, error)

    def times(self, other: Number) -> Number:
        """The product of two."""
        error = self.error * abs(other.value) + abs(self.value) * other.error
        return Number(self.value * other.value, error)

    def plus(self, other: Number) -> Number:
        """The sum of two."""
        return Number(self.value + other.value, self.error + other.error)

    @property
    def digits(self) -> int:
        """How many digits a number needs that may be this one."""
        shortest = (n for n in range(1, 17) if self.equals(float(f"{self.value:.{n}g}")))
        return next(shortest, 17)

    @property
    def short(self) -> float:
        """The number of the fewest digits that it may be."""
        return float(f"{self.value:.{self.digits}g}")

    def root(self) -> Number:
        """The square root of one that is above 0."""
        value = math.sqrt(self.value)
        return Number(value, self.error / value)

    def __str__(self) -> str:
        nothing = abs(self.value) <= min(self.error, NOTHING)
        return "0" if nothing else worded(self.value, self.error)


def worded(value: float, error: float = 0.0) -> str:
    """A number to the digits that are sure, five at most."""
    if not error or not value or not math.isfinite(value / error):
        return f"{value:.5g}"
    digits = int(np.clip(np.floor(np.log10(abs(value) / error)), 1, 5)) if error < abs(value) else 1
    return f"{value:.{digits}g}"


@dataclass(frozen=True, eq=False)
class Fit:
    """A linear relation: its coefficients, and what is left over.

    left: the largest left-over, in its bound: rounding explains up to 1; relative: its norm over
    that of what was fitted.
    """

    coefficients: tuple[Number, ...]
    left: float
    relative: float

    @property
    def exact(self) -> bool:
        """Whether rounding explains what is left over."""
        return self.left <= 1.0


def once(dtype: str) -> float:
    """What one rounding is, at most, of a number."""
    return float(2.0 ** -PRECISION.get(dtype, 24))


def stored_as(value: float, dtype: str) -> float:
    """The number of a dtype that is nearest to another one."""
    mantissa, exponent = math.frexp(value)
    bits = PRECISION.get(dtype, 24)
    return math.ldexp(round(math.ldexp(mantissa, bits)), exponent - bits)


def unit(dtype: str) -> float:
    """What one operation rounds, at most, in any form of a formula."""
    return FORMS * once(dtype)


def fit(
    target: Array, columns: Sequence[Array], bound: Array, noise: Sequence[Array | float] = ()
) -> Fit:
    """target = sum of coefficient * column, where each element may be off by its bound.

    noise: what the elements of each column may themselves be off.
    """
    target, bound = target.ravel(), bound.ravel()
    rows = np.array([column.ravel() for column in columns])
    loose = [np.broadcast_to(each, len(target)) for each in map(np.ravel, noise)]
    if not (known := np.isfinite(bound)).all():
        # Of what may be off by anything, nothing is known, and it says nothing of the rest.
        return fit(target[known], [*rows[:, known]], bound[known], [each[known] for each in loose])
    # What is nearly nothing beside the rest is not known to more digits than the fit is made in.
    least = LEAST * 2.0**-53 * math.sqrt(target @ target / len(target)) if len(target) else 0.0
    bound = np.maximum(bound, least)
    if not (np.isfinite(target).all() and np.isfinite(rows).all()):
        # What overflowed is a multiple of nothing.
        return Fit(tuple(Number(0.0, np.inf) for _ in columns), np.inf, np.inf)
    used = rows.any(axis=1)
    if len(target) <= used.sum():
        # As many unknowns as numbers: anything fits, and nothing is known.
        return Fit(tuple(Number(0.0, np.inf) for _ in columns), 0.0, 0.0)
    found, errors = np.zeros(len(rows)), np.full(len(rows), np.inf)
    if used.any():
        largest = float(bound.max())
        weight = 1.0 / np.maximum(bound, largest * RANGE if largest else 1.0)
        inverse, sure = inverted(rows[used] * weight)
        for _ in range(2):  # the second time, what the first one rounded
            found[used] += inverse @ ((target - found @ rows) * weight)
        sizes = abs(rows)
        bound = bound + EVALUATED * (abs(target) + abs(found) @ sizes)
        off = sum((abs(c) * each for c, each in zip(found, loose, strict=False)), bound)
        errors[used] = abs(inverse) @ (off * weight)
        bound = off + errors[used] @ sizes[used]
        errors[used] = np.where(sure, errors[used], np.inf)
    rest = target - found @ rows
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(rest == 0, 0.0, abs(rest) / bound)
    size = float(np.linalg.norm(target))
    return Fit(
        tuple(map(Number, found.tolist(), errors.tolist())),
        float(np.max(ratio, initial=0.0)),
        float(np.linalg.norm(rest)) / size if size else 0.0,
    )


def inverted(rows: Array) -> tuple[Array, Array]:
    """What makes coefficients of a target that is a sum of the rows, of any lengths.

    And which of the coefficients are sure, and not any, since the rows depend.
    """
    sizes = np.linalg.norm(rows, axis=1)[:, None]
    left, values, right = np.linalg.svd((rows / sizes).T, full_matrices=False)
    kept = values >= DEPENDENT * values.max()
    inverse = (right[kept].T / values[kept]) @ left[:, kept].T
    return inverse / sizes, (abs(right[~kept]) <= DEPENDENT).all(axis=0)


def agreed(numbers: Sequence[Number]) -> Number | None:
    """One number that all of these may be; None if there is none."""
    known = [each for each in numbers if np.isfinite(each.error)]
    if not known:
        return None
    low = max(each.value - each.error for each in known)
    high = min(each.value + each.error for each in known)
    if low > high:
        return None
    best = min(known, key=lambda each: each.error)
    value = min(max(best.value, low), high)
    return Number(value, max(value - low, high - value))
