"""The rounding analysis: exact problems do not round, and the bound holds and is tight."""

import dataclasses
import itertools
from fractions import Fraction

import ml_dtypes
import numpy as np
import pytest
from conftest import exact_with_partial_window, exact_with_wide_numbers, random_problem
from hypothesis import given
from hypothesis import strategies as st

from lockstep.experiments.checks import EXACT_UPDATES
from lockstep.oracle import loop, rounding
from lockstep.oracle.compare import compare_bounds
from lockstep.oracle.loop import STAGES
from lockstep.problem import Optimizer, Problem, ProblemError, hadamard, iris_sgd, split
from lockstep.problem.settings import LossScale


@pytest.mark.parametrize(("dtype", "updates"), EXACT_UPDATES.items())
@pytest.mark.parametrize("momentum", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("accumulation_steps", range(1, 9))
def test_the_exact_problem_is_exact(dtype, updates, momentum, accumulation_steps) -> None:
    problem = hadamard(dtype, accumulation_steps, updates, momentum)
    trajectory = loop.trajectory(problem, "fraction")
    assert len(trajectory) == updates
    assert rounding.exact_updates(problem, trajectory) == updates


def test_the_exact_problem_is_exact_for_a_bit_an_update() -> None:
    problem = hadamard(updates=80)
    trajectory = loop.trajectory(problem, "fraction")
    assert 48 <= rounding.exact_updates(problem, trajectory) < 60


def test_a_rounding_setting_is_not_exact() -> None:
    problem = dataclasses.replace(hadamard(), optimizer=Optimizer(learning_rate=0.1))
    assert rounding.exact_updates(problem, loop.trajectory(problem, "fraction")) == 0


def test_a_window_of_three_examples_is_not_exact() -> None:
    problem = dataclasses.replace(hadamard(accumulation_steps=8, updates=2), accumulation_steps=3)
    assert rounding.exact_updates(problem, loop.trajectory(problem, "fraction")) == 0


def test_partial_windows_can_be_exact() -> None:
    problem = exact_with_partial_window("float64")
    trajectory = loop.trajectory(problem, "fraction")
    assert rounding.exact_updates(problem, trajectory) == len(trajectory) == 12


def test_wide_numbers_are_exact_for_a_while() -> None:
    problem = exact_with_wide_numbers()
    trajectory = loop.trajectory(problem, "fraction")
    assert rounding.exact_updates(problem, trajectory) == len(trajectory) == 16


dyadic = st.builds(lambda n, q: Fraction(n, 2**q), st.integers(-(2**20), 2**20), st.integers(0, 20))


@given(st.lists(dyadic, min_size=1, max_size=5))
def test_the_condition_means_that_no_order_rounds(terms) -> None:
    if not rounding.sums_are_exact(np.array(terms, dtype=object), 24):
        return
    for order in itertools.permutations(terms):
        total = np.float32(0)
        for term in order:
            assert Fraction(float(np.float32(term))) == term
            total += np.float32(term)
        assert Fraction(float(total)) == sum(terms)


def test_the_condition_is_no_weaker_than_needed() -> None:
    def exact(*terms: Fraction) -> bool:
        return rounding.sums_are_exact(np.array(terms, dtype=object), 24)

    assert exact(Fraction(2**24 - 1), Fraction(1))
    assert not exact(Fraction(2**24), Fraction(1))
    assert not exact(Fraction(1, 3))


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_numpy_is_inside_the_bound_and_the_bound_is_tight(dtype, momentum) -> None:
    problem = iris_sgd(dtype, momentum=momentum)
    exact = loop.trajectory(problem, "decimal")
    bounds = list(rounding.rounding_bounds(problem, exact))
    comparison = compare_bounds(exact, loop.trajectory(problem), bounds)
    assert comparison.same
    assert comparison.compared == 30 * 15
    assert comparison.bounds is not None
    unit = 2.0 ** -rounding.PRECISION[dtype]
    # A bound of some ten thousand roundings after 30 updates of 60 examples, not of millions.
    assert max(comparison.bounds) < 40_000 * unit


def scaled_gradient(factor: float) -> loop.Stages:
    """A coefficient that is slightly off, as an epsilon in a clip coefficient makes it."""

    def normalise(accumulator, at):
        return accumulator * factor

    return dataclasses.replace(STAGES, normalise=normalise)


def single_precision(accumulator, gradient, at):
    return (accumulator + gradient).astype(np.float32).astype(np.float64)


@pytest.mark.parametrize(
    "stages",
    [
        scaled_gradient(1 - 1e-6),
        scaled_gradient(1 - 1e-10),
        dataclasses.replace(STAGES, accumulate=single_precision),
        dataclasses.replace(STAGES, learning_rate=lambda at: float(np.float32(0.01))),
    ],
    ids=["1e-6 in a coefficient", "1e-10 in a coefficient", "float32 sum", "float32 rate"],
)
def test_small_differences_are_outside_the_bound(stages) -> None:
    problem = iris_sgd()
    exact = loop.trajectory(problem, "decimal")
    bounds = list(rounding.rounding_bounds(problem, exact))
    comparison = compare_bounds(exact, loop.trajectory(problem, stages=stages), bounds)
    assert comparison.outside[0] > 0


def test_what_is_not_analysed_is_refused() -> None:
    problem = dataclasses.replace(iris_sgd(), optimizer=Optimizer("adamw"))
    with pytest.raises(NotImplementedError, match="SGD"):
        rounding.exact_updates(problem, [])


def test_a_diverging_run_has_no_bound() -> None:
    problem = iris_sgd("float32", learning_rate=1.0)
    with pytest.raises(ProblemError, match=r"update \d+ is out of float32's range"):
        list(rounding.rounding_bounds(problem, loop.trajectory(problem, "decimal")))


def test_numbers_below_the_range_are_not_exact() -> None:
    problem = hadamard("float32", updates=20)
    small = dataclasses.replace(
        problem,
        W=problem.W * 2.0**-115,
        b=problem.b * 2.0**-115,
        micro_batches=[(x, y * 2.0**-115) for x, y in problem.micro_batches],
    )
    exact = rounding.exact_updates(small, loop.trajectory(small, "fraction"))
    assert 0 < exact < 20


def test_each_updates_own_learning_rate_is_looked_at() -> None:
    rates = [0.25] * 5 + [0.3] * 43
    problem = dataclasses.replace(hadamard(), learning_rates=rates)
    assert rounding.exact_updates(problem, loop.trajectory(problem, "fraction")) == 5


def test_weights_whose_sum_rounds_are_not_exact() -> None:
    full = hadamard(accumulation_steps=8, updates=3)
    problem = dataclasses.replace(full, example_weights=[[0.1]] * 8)
    assert rounding.exact_updates(problem, loop.trajectory(problem, "fraction")) == 0


def test_numbers_below_the_range_of_low_precision_are_not_exact() -> None:
    full = hadamard("float32", updates=8)
    small = dataclasses.replace(
        full,
        W=full.W * 2.0**-22,
        b=full.b * 2.0**-22,
        micro_batches=[(x, y * 2.0**-22) for x, y in full.micro_batches],
        compute_dtype="float16",
    )
    assert rounding.exact_updates(small, loop.trajectory(small, "fraction")) < 2


def centred(optimizer: Optimizer, epochs: int = 4) -> Problem:
    """The bias's gradient is 0, and what a computer makes of it is all rounding."""
    x = np.array([[1.0, 2.0], [-1.0, -2.0], [3.0, -1.0], [-3.0, 1.0]])
    y = x @ [[1.5], [-0.5]]
    return Problem(
        np.ones((2, 1)), np.zeros(1), split(x, y, [2, 2]), epochs=epochs, accumulation_steps=2,
        optimizer=optimizer,
    )  # fmt: skip


@pytest.mark.parametrize("name", ["adam", "lion", "adagrad", "rmsprop"])
def test_a_sign_at_zero_is_decided_by_rounding(name) -> None:
    """The bound knows: it lets the bias move by the rule's own step, and no further."""
    problem = centred(Optimizer(name, 0.001), epochs=1)
    exact = loop.trajectory(problem, "decimal")
    (bound,) = rounding.rounding_bounds(problem, exact)
    assert 0 <= bound[-1, 0] <= 2 * 2 * 0.01


def test_a_bound_that_says_nothing_is_refused() -> None:
    problem = centred(Optimizer("adam", 0.001), epochs=30)
    with pytest.raises(ProblemError, match=r"update \d+ has no bound: rounding to float64 can"):
        list(rounding.rounding_bounds(problem, loop.trajectory(problem, "decimal")))


def test_a_model_too_large_for_the_bound_is_refused() -> None:
    x, y = np.zeros((2, 300)), np.zeros((2, 2))
    problem = Problem(np.zeros((300, 2)), np.zeros(2), [(x, y)])
    with pytest.raises(ProblemError, match="rounding bounds: 602 numbers, at most 500"):
        list(rounding.rounding_bounds(problem, [np.zeros((301, 2))]))


def test_the_precisions_are_those_of_the_dtypes() -> None:
    for name, bits in rounding.PRECISION.items():
        assert float(ml_dtypes.finfo(name).eps) == 2.0 ** (1 - bits)


@pytest.mark.parametrize("max_norm", [None, 0.5, 1000.0])
def test_the_slope_is_the_gradient_and_its_derivative(max_norm) -> None:
    weights = [[1.0, 2.0], [3.0], [1.0, 1.0, 2.0], [5.0]]
    problem = random_problem(11, accumulation_steps=4, max_norm=max_norm, example_weights=weights)
    (window,) = rounding.windows(problem)
    theta, (run,) = np.vstack([problem.W, problem.b]), loop.snapshots(problem)
    slope = rounding.slope_of(problem, window, theta, 0)
    assert slope.gradient == pytest.approx(run.gradient, rel=1e-13)
    move = 1e-6 * np.random.default_rng(0).normal(size=theta.shape)
    up, down = (rounding.slope_of(problem, window, theta + each, 0) for each in (move, -move))
    change = (up.gradient - down.gradient).ravel() / 2
    assert slope.derivative @ move.ravel() == pytest.approx(change, rel=1e-6, abs=1e-14)
    assert (slope.error > 0).all()
    assert (slope.error < 2000 * 2.0**-53 * abs(slope.gradient).max()).all()


def test_clipping_rounds_and_shrinks_what_came_of_rounding() -> None:
    free = random_problem(11, accumulation_steps=4)
    (window,), theta = rounding.windows(free), np.vstack([free.W, free.b])
    plain, loose, tight = (
        rounding.slope_of(dataclasses.replace(free, max_norm=norm), window, theta, 0)
        for norm in (None, 1000.0, 2.0**-10)
    )
    assert (loose.error == plain.error + 3 * 2.0**-53 * abs(plain.gradient)).all()
    own = 20 * 2.0**-53 * abs(tight.gradient)
    arrived = tight.error - own
    shrunk = 2.0**-10 / np.linalg.norm(plain.gradient) * plain.error
    assert (arrived > 0).all()
    assert 0.5 * shrunk.max() < arrived.max() < 5 * shrunk.max()
    clipping = dataclasses.replace(free, max_norm=2.0**-10)
    bare = rounding.clipped(clipping, plain.gradient, 0 * plain.error, plain.derivative)
    assert bare.error == pytest.approx(own, rel=1e-12, abs=0)


@pytest.mark.parametrize(
    ("change", "operations", "low"),
    [
        ({"compute_dtype": None}, 3 + 5 + 3, 0),
        ({"compute_dtype": None, "example_weights": [[1.0, 1.0]]}, 3 + 8 + 3, 0),
        ({}, 3 + 5 + 3, 4 + 3),
    ],
)
def test_the_roundings_of_a_gradient_are_counted(change, operations, low) -> None:
    problem = dataclasses.replace(low_precision(1.0), **change)
    (window,), theta = rounding.windows(problem), np.vstack([problem.W, problem.b])
    of_W, of_b = rounding.gradient_error(problem, window, theta).ravel()
    # Two terms of 3 * 2 * 16 / 2, each through so many operations.
    assert of_W == pytest.approx(96 * (operations * 2.0**-24 + low * 2.0**-11), rel=0.005)
    assert of_b == pytest.approx(of_W / 3)


def test_a_quotient_over_next_to_nothing_is_a_derivative() -> None:
    problem = Problem([[5.0]], [0.0], [([[3.0]], [[1.0]])], optimizer=Optimizer(learning_rate=0.25))
    arrays = {"theta": np.array([[5.0], [0.0]]), "gradient": np.array([[84.0], [28.0]])}
    nothing = {name: np.zeros((2, 1)) for name in arrays}
    slopes, rest = rounding.difference_quotients(problem, 0, arrays, nothing)
    assert slopes["theta"][0] == pytest.approx(np.ones((2, 1)), rel=1e-15)
    assert slopes["gradient"][0] == pytest.approx(np.full((2, 1), -0.25), rel=1e-15)
    assert rest.max() < 1e-50


def test_too_many_additions_for_a_bound_are_refused() -> None:
    problem = low_precision(1.0)
    (window,), theta = rounding.windows(problem), np.vstack([problem.W, problem.b])
    many = window._replace(additions=1_600_000)
    share, low = 1_600_000 * 2.0**-24, (4 + 3) * 2.0**-11
    of_W, _ = rounding.gradient_error(problem, many, theta).ravel()
    assert of_W == pytest.approx(96 * (share / (1 - share) + low), rel=0.005)  # Higham's gamma
    with pytest.raises(ProblemError, match=r"^rounding bounds: 2000000 additions in one sum are"):
        rounding.gradient_error(problem, window._replace(additions=2_000_000), theta)


def test_recorded_gradients_have_no_error_and_carry_none() -> None:
    problem = random_problem(12, accumulation_steps=4, epochs=6)
    runs, theta, opened = loop.snapshots(problem), np.vstack([problem.W, problem.b]), []
    for each in runs:
        theta = theta - each.gradient * problem.optimizer.learning_rate
        opened.append(theta)
    gradients, exact = [each.gradient for each in runs], [each.theta for each in runs]
    closed = [each.theta for each in rounding.bounds_with_state(problem, exact)]
    bounds = [each.theta for each in rounding.bounds_with_state(problem, opened, gradients)]
    assert all((bound > 0).all() for bound in bounds)
    assert all((bound < other).all() for bound, other in zip(bounds, closed))
    assert bounds[-1].max() == pytest.approx(6 * bounds[0].max(), rel=0.05, abs=0)


def test_squares_are_in_range_where_they_are_taken() -> None:
    gradient = np.array([[1e20]])
    plain = iris_sgd("float32")
    rounding.check_squares(plain, 1, gradient)
    for change in ({"max_norm": 1.0}, {"optimizer": Optimizer("adam")}):
        problem = dataclasses.replace(plain, **change)
        rounding.check_squares(problem, 1, gradient / 100)
        with pytest.raises(ProblemError, match="update 2 is out of float32's range"):
            rounding.check_squares(problem, 1, gradient)
    x, y = np.ones((1, 1)), np.full((1, 1), 1e20)
    for optimizer, norm in ((Optimizer("adam"), None), (Optimizer("sgd", 0.5), 1.0)):
        far = Problem([[0.0]], [0.0], [(x, y)], dtype="float32", optimizer=optimizer, max_norm=norm)
        with pytest.raises(ProblemError, match="update 1 is out of float32's range"):
            list(rounding.rounding_bounds(far, loop.trajectory(far, "decimal")))


def low_precision(y: float, **settings) -> Problem:
    """Predictions of 15, so that the gradient of W is at most 6 (15 + |y|) before it is scaled."""
    batches = [(np.full((2, 1), 3.0), np.full((2, 1), y))]
    return Problem(
        [[5.0]], [0.0], batches, dtype="float32", compute_dtype="float16", **settings
    )  # fmt: skip


def test_low_precision_is_in_range_at_the_scale_of_the_update() -> None:
    def check(problem, update):
        (window,) = rounding.windows(problem)
        theta = np.vstack([problem.W, problem.b])
        rounding.check_low_precision(problem, window, theta, update)

    check(low_precision(10_000.0), 0)
    with pytest.raises(ProblemError, match="update 1 is out of float16's range"):
        check(low_precision(11_000.0), 0)
    scaled = low_precision(15.0, non_finite="raise", loss_scale=LossScale(128.0, 2))
    for update in range(4):
        check(scaled, update)
    with pytest.raises(ProblemError, match="update 5 is out of float16's range"):
        check(scaled, 4)
    with pytest.raises(ProblemError, match="update 6 is out of float16's range"):
        check(scaled, 5)
    check(dataclasses.replace(scaled, non_finite="skip"), 4)
    with pytest.raises(ProblemError, match="update 1 is out of float16's range"):
        check(dataclasses.replace(scaled, loss_scale=LossScale(1024.0, 2)), 0)
    far = low_precision(11_000.0)
    with pytest.raises(ProblemError, match="update 1 is out of float16's range"):
        list(rounding.rounding_bounds(far, loop.trajectory(far, "decimal")))


def test_the_largest_parameter_of_a_run_is_in_the_range_of_its_dtype() -> None:
    problem, one = iris_sgd("float32"), np.ones((2, 1))
    assert rounding.largest_parameter(problem, [one, -3 * one, one]) == 3
    assert rounding.largest_parameter(problem, []) == 0
    with pytest.raises(ProblemError, match="update 2 is out of float32's range"):
        rounding.largest_parameter(problem, [one, one * 1e39])


def test_a_derivative_that_overflows_is_told() -> None:
    problem = Problem([[1.0]], [0.0], [([[1e160]], [[1.0]])])
    with (
        np.errstate(over="ignore", invalid="ignore"),
        pytest.raises(ProblemError, match="update 1 is out of float64's range"),
    ):
        list(rounding.rounding_bounds(problem, [np.ones((2, 1))]))
    endless = rounding.Slope(*[np.full((2, 1), np.inf)] * 3)
    with pytest.raises(ProblemError, match="update 2 is out of float64's range"):
        rounding.require_finite(problem, 1, endless)


def test_a_rule_that_is_not_defined_within_the_error_has_no_bound() -> None:
    problem = centred(Optimizer("adam", eps=0.0), epochs=1)
    with pytest.raises(ProblemError, match=r"^update 1 has no bound: adam is not defined within"):
        list(rounding.rounding_bounds(problem, [np.ones((3, 1))]))


@pytest.mark.parametrize(
    ("settings", "least", "most"),
    [
        ({"weight_decay": 2.0**-3}, 5, 10),
        ({"weight_decay": 0.1}, 0, 0),
        ({"momentum": 0.5, "nesterov": True, "weight_decay": 2.0**-3}, 4, 10),
        ({"momentum": 0.5, "dampening": 0.5}, 5, 10),
        ({"momentum": 0.5, "dampening": 0.1}, 1, 1),
        ({"momentum": 0.1}, 0, 0),
    ],
)
@pytest.mark.parametrize("decay_bias", [True, False])
def test_exactness_looks_at_every_constant_of_sgd(settings, least, most, decay_bias) -> None:
    full = hadamard(updates=10)
    optimizer = Optimizer(learning_rate=full.optimizer.learning_rate, **settings)
    problem = dataclasses.replace(full, optimizer=optimizer, decay_bias=decay_bias)
    exact, floats = loop.trajectory(problem, "fraction"), loop.trajectory(problem)
    count = rounding.exact_updates(problem, exact)
    assert least <= count <= most
    assert all((e == f).all() for e, f in zip(exact[:count], floats[:count]))
