"""Numbers read off a linear relation: no farther from the truth than is said, and not closer."""

import numpy as np
import pytest

from lockstep.oracle.tracked import banded, rounded
from lockstep.trace.identify import linear
from lockstep.trace.numbers import Number, agreed, fit, unit

RELATIONS = [(dtype, size) for dtype in ("float32", "float64") for size in (5, 40, 4000)]


@pytest.mark.parametrize(("dtype", "size"), RELATIONS)
def test_coefficients_are_inside_their_error(dtype, size):
    numbers = np.random.default_rng(size)
    moment, gradient, parameter = (numbers.standard_normal(size).astype(dtype) for _ in range(3))
    beta = np.dtype(dtype).type(0.9)
    after = (
        beta * moment + (1 - beta) * (gradient + np.dtype(dtype).type(0.01) * parameter)
    ).astype(dtype)
    columns = [each.astype(np.float64) for each in (moment, gradient, parameter)]
    bound = unit(dtype) * sum(map(abs, columns))
    found = fit(after.astype(np.float64), columns, bound)
    assert found.exact
    for number, right in zip(found.coefficients, (0.9, 0.1, 0.001), strict=True):
        assert number.equals(right)
        assert number.error < 1e-4 if dtype == "float32" else number.error < 1e-13
    # One element that is off by more than rounding is seen.
    after[size // 2] += np.dtype(dtype).type(1e-4)
    assert not fit(after.astype(np.float64), columns, bound).exact


def test_what_depends_is_not_known():
    one = np.arange(1.0, 9.0)
    found = fit(3 * one, [one, 2 * one], 1e-15 * one)
    assert found.exact
    assert all(np.isinf(each.error) for each in found.coefficients)
    few = fit(np.ones(2), [np.ones(2), np.arange(2.0)], np.zeros(2))
    assert few.exact
    assert all(np.isinf(each.error) for each in few.coefficients)


def test_numbers_agree_only_where_one_number_may_be_all_of_them():
    assert agreed([Number(1.0, 0.1), Number(1.15, 0.1)]).equals(1.08)
    assert agreed([Number(1.0, 0.1), Number(1.3, 0.1)]) is None
    assert agreed([Number(1.0, np.inf)]) is None


def test_arrays_that_carry_their_error_have_that_of_each_number():
    kind = rounded(2.0**-24, "float32")
    band = banded(kind)
    numbers = np.random.default_rng(3)
    one, other = numbers.standard_normal(50), numbers.random(50) + 0.1

    def formula(x, y, number):
        mean = x * number(0.9) + abs(y) * (1 - number(0.9))
        return number(0.5) * mean / (np.sqrt(y) + number(1e-3)) - np.maximum(x, y)

    whole = formula(band(one), band(other), kind)
    for index in range(50):
        x, y = kind(one[index]), kind(other[index])
        mean = x * kind(0.9) + abs(y) * (1 - kind(0.9))
        alone = kind(0.5) * mean / (y.sqrt() + kind(1e-3)) - max(x, y)
        assert whole.value[index] == alone.value
        assert whole.error[index] >= alone.error * (1 - 1e-12)
        assert whole.error[index] <= 2 * alone.error + 1e-12


def test_where_decay_and_gradient_cancel_an_average_of_squares_is_as_rough_as_they_are():
    numbers = np.random.default_rng(0)
    parameter = numbers.standard_normal(400).astype("float32")
    pull = np.float32(0.02) * parameter
    clipped = np.where(np.arange(400) % 2, 1e-6 * numbers.standard_normal(400) - pull, 1).astype(
        "f4"
    )
    after = np.float32(0.05) * (clipped + pull) ** 2
    exact = clipped.astype(float) + 0.02 * parameter.astype(float)
    off = unit("float32") * (abs(clipped) + abs(pull)).astype(float)
    columns = [np.zeros(400), exact * exact]
    assert not linear(after.astype(float), columns, 2, "float32").exact
    found = linear(after.astype(float), columns, 2, "float32", (2 * abs(exact) + off) * off)
    assert found.exact
    assert found.coefficients[1].equals(0.05)
    assert found.coefficients[1].error < 1e-4


def test_a_number_that_may_be_0_is_written_as_0():
    assert str(Number(-2e-18, 1e-7)) == "0"
    assert str(Number(2e-12, 1e-15)) == "2e-12"
