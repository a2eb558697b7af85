"""The comparison: it counts what it compares, and finds one bit."""

from fractions import Fraction

import numpy as np
import pytest

from lockstep.oracle.compare import compare_bits, compare_bounds, finite, relative, ulps


def trajectory(updates: int = 3, dtype: str = "float64") -> list:
    rng = np.random.default_rng(0)
    return [rng.normal(size=(5, 3)).astype(dtype) for _ in range(updates)]


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_one_bit_is_found_and_placed(dtype) -> None:
    expected = trajectory(dtype=dtype)
    same = compare_bits(expected, trajectory(dtype=dtype))
    assert same.same
    assert (same.compared, same.outside, same.first) == (45, (0, 0, 0), None)
    assert (same.distances, same.bounds) == ((0.0, 0.0, 0.0), None)
    actual = trajectory(dtype=dtype)
    actual[1][2, 1] = np.nextafter(actual[1][2, 1], np.inf, dtype=dtype)
    different = compare_bits(expected, actual)
    assert not different.same
    assert different.outside == (0, 1, 0)
    assert different.first is not None
    assert (different.first.update, different.first.parameter) == (2, "W")
    assert (different.first.index, different.first.ulps) == ((2, 1), 1)
    assert 0 < different.distances[1] < 1e-6


def test_the_last_row_is_the_bias() -> None:
    expected, actual = trajectory(), trajectory()
    actual[0][4, 2] += 1
    first = compare_bits(expected, actual).first
    assert first is not None
    assert (first.parameter, first.index) == ("b", (2,))
    assert "update 1, b[2]" in str(first)


def test_the_first_of_all_that_differ_is_told_in_a_line() -> None:
    expected, actual = [np.full((3, 2), 2.0)] * 3, [np.full((3, 2), 2.0) for _ in range(3)]
    actual[1][1, 1] = 1.75
    actual[1][2, 0] = actual[2][0, 0] = 5.0
    found = compare_bits(expected, actual)
    assert found.outside == (0, 2, 1)
    assert str(found.first) == ("update 2, W[1, 1]: 1.75 instead of 2, -2.5e-01 or 1.1e+15 ULP")


def test_nothing_compared_is_not_the_same() -> None:
    assert not compare_bits([], []).same


def test_minus_zero_and_nan_are_bits() -> None:
    zero, nan = [np.zeros((2, 1))], [np.full((2, 1), np.nan)]
    assert compare_bits(zero, [-zero[0]]).outside == (2,)
    assert (compare_bits(nan, nan).same, compare_bits(nan, nan).distances) == (True, (0.0,))
    assert compare_bits(zero, nan).distances == (float("inf"),)


def test_a_fraction_that_the_dtype_cannot_hold_differs() -> None:
    third = [np.array([[Fraction(1, 3)]], dtype=object)]
    half = [np.array([[Fraction(1, 2)]], dtype=object)]
    assert compare_bits(half, [np.array([[0.5]])]).same
    assert compare_bits(third, [np.array([[1 / 3]])]).outside == (1,)


def test_a_number_that_is_not_the_fraction_differs_by_its_distance() -> None:
    half = [np.array([[Fraction(1, 2)]], dtype=object)]
    found = compare_bits(half, [np.array([[0.75]])])
    assert (found.outside, found.distances) == ((1,), (0.5,))


def test_a_fraction_beyond_all_floats_is_a_number() -> None:
    assert finite(np.array([[Fraction(10**400)]], dtype=object)).all()


def test_different_lengths_and_shapes_are_errors() -> None:
    with pytest.raises(ValueError, match="2 updates instead of 3"):
        compare_bits(trajectory(3), trajectory(2))
    with pytest.raises(ValueError, match=r"update 1: shape \(3, 5\)"):
        compare_bits(trajectory(1), [trajectory(1)[0].T])
    bounds = [np.ones((5, 3))] * 3
    with pytest.raises(ValueError, match="2 updates instead of 3"):
        compare_bounds(trajectory(3), trajectory(2), bounds)
    with pytest.raises(ValueError, match="2 updates instead of 3"):
        compare_bounds(trajectory(3), trajectory(3), bounds[:2])


def test_another_dtype_is_an_error_even_if_it_rounds_alike() -> None:
    single = [theta.astype("float32") for theta in trajectory()]
    with pytest.raises(ValueError, match="float32 instead of float64"):
        compare_bits(trajectory(), single)
    with pytest.raises(ValueError, match="float64 instead of float32"):
        compare_bits(single, trajectory())


@pytest.mark.parametrize("number", [np.nan, np.inf])
def test_an_expected_nan_or_infinity_differs_from_a_number(number) -> None:
    comparison = compare_bits([np.full((2, 1), number)], [np.zeros((2, 1))])
    assert (comparison.outside, comparison.distances) == ((2,), (float("inf"),))


def test_bounds_are_taken_exactly() -> None:
    expected = [np.array([[Fraction(1)], [Fraction(2)]], dtype=object)]
    bound = [np.full((2, 1), 2.0**-52)]
    inside = [np.array([[1 + 2.0**-52], [2.0]])]
    outside = [np.array([[1 + 2.0**-51], [2.0]])]
    assert compare_bounds(expected, inside, bound).same
    comparison = compare_bounds(expected, outside, bound)
    assert comparison.outside == (1,)
    assert comparison.distances == (2.0**-52,)
    assert comparison.bounds == (2.0**-53,)
    assert not compare_bounds(expected, [np.array([[np.nan], [2.0]])], bound).same


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_ulps_count_the_floats_between(dtype) -> None:
    one = np.array([1, -1, 0, 0], dtype=dtype)
    up = np.nextafter(one, np.inf, dtype=dtype)
    assert ulps(one, up).tolist() == [1, 1, 1, 1]
    assert ulps(up, one).tolist() == [1, 1, 1, 1]
    zeros = np.array([0.0, 0.0], dtype=dtype)
    assert ulps(zeros, -zeros).tolist() == [0, 0]
    tiny = np.nextafter(zeros, -1, dtype=dtype)
    assert ulps(np.nextafter(zeros, 1, dtype=dtype), tiny).tolist() == [2, 2]


def test_relative_is_by_the_largest() -> None:
    assert relative(np.array([4.0, 1e-9]), np.array([4.0, 3e-9])) == pytest.approx(5e-10)
    assert relative(np.zeros(2), np.array([0.0, 1.0])) == 1


@pytest.mark.parametrize("what", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_is_outside_any_bound(what) -> None:
    # 0 is inside the bound: what is no number must not count as one.
    expected, actual = [np.zeros((2, 3))], [np.zeros((2, 3))]
    actual[0][1, 2] = what
    found = compare_bounds(expected, actual, [np.ones((2, 3))])
    assert (found.compared, found.outside, found.distances) == (6, (1,), (float("inf"),))
    assert found.bounds == (1.0,)
    assert found.first is not None
    assert (found.first.parameter, found.first.index) == ("b", (2,))
