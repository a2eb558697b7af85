"""Numbers that carry the largest error that rounding can have given them: running error analysis.

The oracle's formulas run on them as they run on floats, fractions and decimals, so a bound needs
no formulas of its own (Higham, Accuracy and Stability of Numerical Algorithms, 2nd ed., 3.3).
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

import numpy as np

# A framework writes a formula in its own way, m + (1 - beta) (g - m) for beta m + (1 - beta) g. No
# form takes more than so many roundings where the oracle takes one, of terms no larger.
FORMS = 4


class Rounded:
    """A number, and a bound on how far a computed one may be from it. See `rounded`."""

    __slots__ = ("error", "value")
    unit: ClassVar[float] = 0.0
    dtype: ClassVar[str] = "float64"

    def __init__(self, value: Any, error: float | None = None) -> None:
        """A number whose error, unless it is given, is that of storing it in the dtype."""
        self.value = float(value)
        self.error = abs(self.value - float(np.dtype(self.dtype).type(self.value)))
        if error is not None:
            self.error = error

    def _new(self, value: float, error: float) -> Rounded:
        """The result of one operation, which rounds."""
        return type(self)(value, error + self.unit * abs(value))

    def _other(self, other: Any) -> Rounded:
        return other if isinstance(other, Rounded) else type(self)(other)

    def __add__(self, other: Any) -> Rounded:
        other = self._other(other)
        return self._new(self.value + other.value, self.error + other.error)

    def __sub__(self, other: Any) -> Rounded:
        return self + -self._other(other)

    def __rsub__(self, other: Any) -> Rounded:
        return -self + other

    def __mul__(self, other: Any) -> Rounded:
        other = self._other(other)
        error = abs(self.value) * other.error + abs(other.value) * self.error
        return self._new(self.value * other.value, error + self.error * other.error)

    def __truediv__(self, other: Any) -> Rounded:
        other = self._other(other)
        least = abs(other.value) - other.error
        if least <= 0:
            return type(self)(self.value / other.value if other.value else math.nan, math.inf)
        quotient = self.value / other.value
        return self._new(quotient, (self.error + abs(quotient) * other.error) / least)

    def __rtruediv__(self, other: Any) -> Rounded:
        return self._other(other) / self

    def __pow__(self, exponent: Any) -> Rounded:
        """A power of an exact number; a library may multiply, once for each whole exponent."""
        exponent = self._other(exponent)
        power = self.value**exponent.value
        error = abs(math.log(self.value)) * exponent.error if exponent.error else 0.0
        return type(self)(power, (max(1.0, exponent.value) * self.unit / FORMS + error) * power)

    def __neg__(self) -> Rounded:
        return type(self)(-self.value, self.error)

    def __abs__(self) -> Rounded:
        return type(self)(abs(self.value), self.error)

    __radd__ = __add__
    __rmul__ = __mul__

    def __lt__(self, other: Any) -> bool:
        return self.value < self._other(other).value

    def __gt__(self, other: Any) -> bool:
        return self.value > self._other(other).value

    def __le__(self, other: Any) -> bool:
        return not self > other

    def __ge__(self, other: Any) -> bool:
        return not self < other

    def __eq__(self, other: object) -> bool:
        return self.value == self._other(other).value

    def __bool__(self) -> bool:
        return bool(self.value)

    def __float__(self) -> float:
        return self.value

    def sqrt(self) -> Rounded:
        """The square root; `np.sqrt` calls it for every element."""
        value, error = max(self.value, 0.0), self.error
        root = math.sqrt(value)
        if error < value:
            # sqrt(x) - sqrt(x - e) = e / (sqrt(x) + sqrt(x - e))
            return self._new(root, error / (root + math.sqrt(value - error)))
        return self._new(root, max(root, math.sqrt(value + error) - root))

    def sign(self) -> Rounded:
        """-1, 0 or 1; the wrong one where the error is larger than the number."""
        sign = float((self.value > 0) - (self.value < 0))
        return type(self)(sign, 2.0 if self.error and abs(self.value) <= self.error else 0.0)

    def averaged(self, moment: Any, new: Any) -> Rounded:
        """The average of both, if it may have been made as moment + (new - moment) (1 - beta)."""
        both = abs(self._other(moment).value) + abs(self._other(new).value)
        return type(self)(self.value, self.error + self.unit * both)


def rounded(unit: float, dtype: str = "float64") -> type[Rounded]:
    """The numbers of a dtype with this unit roundoff."""
    return type("Rounded", (Rounded,), {"__slots__": (), "unit": FORMS * unit, "dtype": dtype})


class Band(Rounded):
    """Arrays of such numbers, for as many as a real model has: `banded(number)` makes the class.

    The largest errors that the oracle's formulas give them are the same, element by element.
    """

    __slots__ = ()

    def __init__(self, value: Any, error: Any = None) -> None:
        """An array whose error, unless it is given, is that of storing it in the dtype."""
        if isinstance(value, Rounded):
            self.value, self.error = value.value, value.error
            return
        values: Any = np.asarray(value, dtype=np.float64)
        stored = values.astype(type(self).dtype).astype(np.float64)
        self.value, self.error = values, abs(values - stored) if error is None else error

    def _other(self, other: Any) -> Rounded:
        if isinstance(other, np.ndarray) and other.dtype == object:
            other = other.flat[0]  # a column of constants: all rows alike
        return other if isinstance(other, Rounded) else type(self)(other)

    def __truediv__(self, other: Any) -> Rounded:
        other = self._other(other)
        if not isinstance(other, Band):
            other = type(self)(other)
        with np.errstate(divide="ignore", invalid="ignore"):
            least = abs(other.value) - other.error
            quotient = self.value / other.value
            error = (self.error + abs(quotient) * other.error) / least
            new = self._new(quotient, np.where(least > 0, error, np.inf))  # type: ignore[arg-type]
        return new

    # Python asks the array first, of a number and an array, only where these are its own.
    def __radd__(self, other: Any) -> Rounded:
        return self + other

    def __rmul__(self, other: Any) -> Rounded:
        return self * other

    def __rsub__(self, other: Any) -> Rounded:
        return -self + other

    def __rtruediv__(self, other: Any) -> Rounded:
        return type(self)(other) / self

    def sqrt(self) -> Rounded:
        """The square root of each."""
        value, error = np.maximum(self.value, 0.0), self.error
        root, least = np.sqrt(value), np.sqrt(np.maximum(value - error, 0.0))
        with np.errstate(divide="ignore", invalid="ignore"):
            inside = error / (root + least)
        outside = np.maximum(root, np.sqrt(value + error) - root)
        error = np.where(error < value, inside, outside)
        return self._new(root, error)

    def sign(self) -> Rounded:
        """The sign of each."""
        unsure = (np.asarray(self.error) > 0) & (abs(self.value) <= self.error)
        return type(self)(np.sign(self.value), np.where(unsure, 2.0, 0.0))

    def maximum(self, other: Any) -> Rounded:
        """The larger of each two."""
        other = self._other(other)
        value = np.maximum(self.value, other.value)
        return type(self)(value, np.maximum(self.error, other.error))

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **_: Any) -> Any:
        """What the oracle's formulas call of NumPy."""
        first, *others = (each if isinstance(each, Band) else type(self)(each) for each in inputs)
        calls: dict[Any, str] = {
            np.sqrt: "sqrt", np.sign: "sign", np.maximum: "maximum", np.absolute: "__abs__",
            np.add: "__add__", np.subtract: "__sub__", np.multiply: "__mul__",
            np.true_divide: "__truediv__",
        }  # fmt: skip
        return getattr(first, calls[ufunc])(*others) if ufunc in calls else NotImplemented


def banded(number: type[Rounded]) -> type[Band]:
    """Arrays of numbers of this kind."""
    return type("Band", (Band, number), {"__slots__": ()})
