"""Numbers that carry their error: the error encloses what rounding can do, and is no looser."""

import math
import operator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lockstep.oracle.tracked import Band, Rounded, banded, rounded

# Without roundings of its own, an operation's error is what the operands' errors become.
EXACT = rounded(0.0)
NUMBERS = st.floats(0.125, 8) | st.floats(-8, -0.125)
ERRORS = st.floats(0, 0.1)
BINARY = operator.add, operator.sub, operator.mul, operator.truediv
# What the floats round that the errors are computed in, here and there: of an error, and of numbers
# of up to 64 that cancel.
RELATIVE, ABSOLUTE = 1e-9, 1e-12


def ends(number: Rounded) -> tuple[float, float]:
    return number.value - number.error, number.value + number.error


@given(NUMBERS, ERRORS, NUMBERS, ERRORS)
def test_an_operation_encloses_its_operands_and_reaches_their_ends(a, e, b, f) -> None:
    """All four are monotonous between the ends of their operands, so that these are the worst."""
    x, y = EXACT(a, e), EXACT(b, f)
    for operation in BINARY:
        found = operation(x, y)
        worst = max(
            abs(operation(one, other) - found.value) for one in ends(x) for other in ends(y)
        )
        assert worst <= found.error * (1 + RELATIVE) + ABSOLUTE
        assert found.error <= worst * (1 + RELATIVE) + ABSOLUTE


@given(st.floats(0, 8), ERRORS)
def test_a_root_encloses_its_number_and_reaches_its_ends(value, error) -> None:
    found = np.sqrt(np.array([EXACT(value, error)], dtype=object))[0]
    low, high = (math.sqrt(max(end, 0.0)) for end in ends(EXACT(value, error)))
    worst = max(high - found.value, found.value - low)
    assert found.error == pytest.approx(worst, rel=1e-6, abs=1e-12)


def test_what_may_be_nothing_has_no_quotient_and_no_sign() -> None:
    """The bound of a quotient is infinite as soon as the divisor may be 0; a sign is off by 2."""
    for value, error in ((0.5, 0.5), (0.5, 0.75), (-0.5, 0.5), (0.0, 0.0)):
        assert (EXACT(1.0) / EXACT(value, error)).error == math.inf
        array = banded(rounded(2.0**-24))(np.array([value]), np.array([error]))
        assert (1.0 / array).error.tolist() == [math.inf]
    assert (EXACT(1.0) / EXACT(0.5, 0.4375)).error == 14
    assert [EXACT(v, e).sign().error for v, e in ((0.5, 0.5), (0.5, 0.25), (0.0, 0.0))] == [2, 0, 0]
    assert EXACT(-0.5, 0.25).sign().value == -1


def test_numbers_are_ordered_by_their_values() -> None:
    small, large, same = EXACT(1.0, 5.0), EXACT(2.0, 0.0), EXACT(1.0, 0.5)
    for one, other in ((small, large), (small, same), (large, small), (small, 1.0), (small, 2.0)):
        value = float(other)
        for compare in (operator.lt, operator.gt, operator.le, operator.ge, operator.eq):
            assert compare(one, other) == compare(one.value, value)


@given(st.lists(st.tuples(NUMBERS, ERRORS, NUMBERS, ERRORS), min_size=2, max_size=4))
def test_an_array_of_such_numbers_is_what_they_are_one_by_one(rows) -> None:
    number = rounded(2.0**-24, "float32")
    array = banded(number)
    a, e, b, f = (np.array(column) for column in zip(*rows, strict=True))
    first, second = array(a, e), array(b, f)
    single = [(number(*row[:2]), number(*row[2:])) for row in rows]

    def same(found: Band, expected: list[Rounded]) -> None:
        assert np.shape(found.value) == (len(rows),)
        values, errors = ([getattr(x, n) for x in expected] for n in ("value", "error"))
        # NumPy's functions of an array may round otherwise than Python's of a float.
        np.testing.assert_allclose(found.value, values, rtol=1e-14)
        np.testing.assert_allclose(np.broadcast_to(found.error, len(rows)), errors, rtol=RELATIVE)

    for operation in BINARY:
        same(operation(first, second), [operation(x, y) for x, y in single])
        same(operation(2.5, second), [operation(2.5, y) for _, y in single])
        same(operation(first, 2.5), [operation(x, 2.5) for x, _ in single])
    same(np.sqrt(abs(first)), [abs(x).sqrt() for x, _ in single])
    same(np.sign(first), [x.sign() for x, _ in single])
    same(np.sqrt(array(np.zeros_like(a), e)), [number(0.0, error).sqrt() for error in e])


def test_a_sign_that_is_not_sure_is_off_by_two_in_an_array_too() -> None:
    values, errors = np.array([0.5, -0.5, 0.0, 0.25]), np.array([0.5, 0.25, 0.0, 1.0])
    found = np.sign(banded(EXACT)(values, errors))
    assert found.value.tolist() == [1, -1, 0, 1]
    assert found.error.tolist() == [2, 0, 0, 2]


@given(NUMBERS)
def test_a_number_is_off_by_what_storing_it_takes(value) -> None:
    expected = abs(value - float(np.float32(value)))
    assert rounded(2.0**-24, "float32")(value).error == expected
    assert banded(rounded(2.0**-24, "float32"))(np.array([value])).error.tolist() == [expected]
