"""Compare trajectories: bits, units in the last place, rounding bounds, the first divergence.

A trajectory is one array per update, of shape (features + 1, outputs): W above b.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from lockstep.problem import Array

# From so many units in the last place on, a number is another one.
FAR = 10**6


@dataclass(frozen=True)
class Divergence:
    """The first number that differs: where it stands and what it should have been."""

    update: int
    parameter: str
    index: tuple[int, ...]
    expected: float
    actual: float
    ulps: int

    @property
    def where(self) -> str:
        """The number's place, for example "W[0, 2]"."""
        return f"{self.parameter}[{', '.join(map(str, self.index))}]"

    def __str__(self) -> str:
        # Of what is far off, the last digits say nothing, and each processor has its own.
        far = self.ulps > FAR
        actual, expected = (f"{x:.9g}" if far else repr(x) for x in (self.actual, self.expected))
        ulps = f"{self.ulps:.1e}" if far else self.ulps
        return (
            f"update {self.update}, {self.where}: {actual} instead of {expected},"
            f" {self.actual - self.expected:+.1e} or {ulps} ULP"
        )


@dataclass(frozen=True)
class Comparison:
    """What was compared, update by update, and what came of it.

    compared: how many numbers, over all updates.
    outside: per update, how many are not the same bits, or not inside their bound.
    distances: per update, max |actual - expected| / max |expected|.
    bounds: per update, max bound / max |expected|; None where bits were compared.
    first: the first number outside, or None.
    """

    compared: int
    outside: tuple[int, ...]
    distances: tuple[float, ...]
    bounds: tuple[float, ...] | None
    first: Divergence | None

    @property
    def same(self) -> bool:
        """Whether something was compared and nothing was outside."""
        return self.compared > 0 and not any(self.outside)


def differing_bits(expected: Array, actual: Array) -> Array:
    """Where two arrays of one dtype do not hold the same bits; NaN equals itself, 0 not -0."""
    bits = f"u{expected.dtype.itemsize}"
    return np.ascontiguousarray(expected).view(bits) != np.ascontiguousarray(actual).view(bits)


def ulps(expected: Array, actual: Array) -> Array:
    """How many floating-point numbers apart: adjacent ones are 1 apart, 0 and -0 are 0 apart."""

    def ordinal(array: Array) -> Array:
        signed = np.ascontiguousarray(array).view(f"i{array.dtype.itemsize}").astype(object)
        return np.where(signed < 0, np.iinfo(f"i{array.dtype.itemsize}").min - signed, signed)

    return np.abs(ordinal(expected) - ordinal(actual))


def relative(expected: Array, actual: Array) -> float:
    """The norm-wise distance max |actual - expected| / max |expected|; exact for fractions."""
    if not (finite(expected).all() and finite(actual).all()):
        return float("inf")
    difference = abs(exact(actual) - exact(expected)).max()
    size = abs(exact(expected)).max()
    return float(difference / size) if size else float(difference)


def finite(array: Array) -> Array:
    """Where an array holds numbers; fractions and decimals always do."""
    return np.isfinite(array.astype(np.float64)) if array.dtype != object else array == array


def exact(array: Array) -> Array:
    """The same numbers as `Fraction`."""
    return np.frompyfunc(Fraction, 1, 1)(array.astype(object))


def compare_bits(expected: Sequence[Array], actual: Sequence[Array]) -> Comparison:
    """Compare two trajectories bit for bit.

    `expected` may hold fractions; one that its dtype cannot hold counts as different. Raises
    ValueError if the trajectories have different lengths, shapes or dtypes.
    """
    check_shapes(expected, actual)
    masks, distances = [], []
    for right, found in zip(expected, actual, strict=True):
        if right.dtype not in (object, found.dtype):
            raise ValueError(f"{found.dtype} instead of {right.dtype}")
        rounded = right.astype(found.dtype)
        mask = differing_bits(rounded, found)
        if right.dtype == object:
            mask |= rounded != right
        masks.append(mask)
        distances.append(relative(right, found) if mask.any() else 0.0)
    return summarise(expected, actual, masks, distances, None)


def compare_bounds(
    expected: Sequence[Array], actual: Sequence[Array], bounds: Sequence[Array]
) -> Comparison:
    """Require |actual - expected| <= bound of every number, the difference taken exactly."""
    check_shapes(expected, actual)
    check_shapes(expected, bounds)
    masks, distances, sizes = [], [], []
    for right, found, bound in zip(map(exact, expected), actual, bounds, strict=True):
        number = finite(found)
        difference = abs(exact(np.where(number, found, 0)) - right)
        size = abs(right).max() or 1
        masks.append((difference > exact(bound)).astype(bool) | ~number)
        distances.append(float(difference.max() / size) if number.all() else float("inf"))
        sizes.append(float(Fraction(float(bound.max())) / size))
    return summarise(expected, actual, masks, distances, sizes)


def summarise(
    expected: Sequence[Array],
    actual: Sequence[Array],
    masks: Sequence[Array],
    distances: Sequence[float],
    bounds: Sequence[float] | None,
) -> Comparison:
    """Count, and find the first number outside."""
    first = None
    for update, mask in enumerate(masks):
        if mask.any():
            row, column = (int(i) for i in np.argwhere(mask)[0])
            last = row == len(mask) - 1
            first = Divergence(
                update + 1,
                "b" if last else "W",
                (column,) if last else (row, column),
                float(expected[update][row, column]),
                float(actual[update][row, column]),
                int(
                    ulps(expected[update].astype(actual[update].dtype), actual[update])[row, column]
                ),
            )
            break
    return Comparison(
        compared=sum(array.size for array in actual),
        outside=tuple(int(mask.sum()) for mask in masks),
        distances=tuple(distances),
        bounds=None if bounds is None else tuple(bounds),
        first=first,
    )


def check_shapes(expected: Sequence[Array], actual: Sequence[Array]) -> None:
    """Raise ValueError unless there are as many arrays, of the same shapes."""
    if len(expected) != len(actual):
        raise ValueError(f"{len(actual)} updates instead of {len(expected)}")
    for update, (e, a) in enumerate(zip(expected, actual, strict=True), 1):
        if e.shape != a.shape:
            raise ValueError(f"update {update}: shape {a.shape} instead of {e.shape}")
