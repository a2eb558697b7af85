"""The oracle against itself: precisions agree, windows are batches, stages can be replaced."""

import dataclasses
from decimal import Context, Decimal, localcontext
from fractions import Fraction
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import exact_with_partial_window, random_problem

from lockstep import mistakes
from lockstep.oracle import loop
from lockstep.oracle.loop import STAGES
from lockstep.oracle.tracked import rounded
from lockstep.problem import Optimizer, Problem, hadamard, iris_adamw, iris_sgd
from lockstep.problem.settings import LossScale, Schedule


def one_batch(window) -> list:
    x, y = zip(*window, strict=True)
    return [(np.concatenate(x), np.concatenate(y))]


def test_a_window_is_one_large_batch() -> None:
    problem = random_problem(2, accumulation_steps=4)
    batch = dataclasses.replace(
        problem, micro_batches=one_batch(problem.micro_batches), accumulation_steps=1
    )
    (window,) = loop.trajectory(problem, "fraction")
    (large,) = loop.trajectory(batch, "fraction")
    assert (window == large).all()
    assert window.size == 15


def test_a_partial_window_is_divided_by_its_own_examples() -> None:
    problem = random_problem(3, accumulation_steps=3)
    first, second = loop.trajectory(problem, "fraction")
    alone = Problem(first[:-1].astype(float), first[-1].astype(float), problem.micro_batches[3:])
    # The first update, rounded to floats, is where the second one starts from in `alone`.
    (expected,) = loop.trajectory(alone, "fraction")
    assert abs(expected - second).max() < Fraction(1, 10**14)
    assert second.size == 15


def test_decimals_are_fractions_to_fifty_digits() -> None:
    problem = iris_sgd(momentum=0.9, updates=8)
    decimals = loop.trajectory(problem, "decimal", updates=8)
    fractions = loop.trajectory(problem, "fraction", updates=8)
    compared = 0
    for decimal, fraction in zip(decimals, fractions, strict=True):
        as_fraction = np.frompyfunc(Fraction, 1, 1)(decimal)
        assert (abs(as_fraction - fraction) < Fraction(1, 10**50)).all()
        compared += decimal.size
    assert compared == 8 * 15


def test_floats_are_near_decimals_for_adamw() -> None:
    problem = iris_adamw(updates=30)
    floats = loop.trajectory(problem, updates=30)
    decimals = loop.trajectory(problem, "decimal", updates=30)
    for f, d in zip(floats, decimals, strict=True):
        assert abs(f - d.astype(float)).max() < 1e-13
    assert len(floats) == 30


def test_adamw_is_the_textbook_rule() -> None:
    """Against Loshchilov and Hutter's algorithm 2, written out for one number in plain floats."""
    settings = Optimizer("adamw", learning_rate=0.1, weight_decay=0.2, eps=1e-3)
    problem = Problem([[2.0]], [0.0], [([[1.0]], [[0.0]])], epochs=3, optimizer=settings)
    w = b = 1.0
    w, b, moments = 2.0, 0.0, {"w": [0.0, 0.0], "b": [0.0, 0.0]}
    for t, theta in enumerate(loop.trajectory(problem), 1):
        gradient = 2 * (w + b)
        new = {}
        for name, p in (("w", w), ("b", b)):
            m, v = moments[name]
            m, v = 0.9 * m + 0.1 * gradient, 0.999 * v + 0.001 * gradient**2
            moments[name] = [m, v]
            m_hat, v_hat = m / (1 - 0.9**t), v / (1 - 0.999**t)
            new[name] = p - 0.1 * 0.2 * p - 0.1 * m_hat / (v_hat**0.5 + 1e-3)
        w, b = new["w"], new["b"]
        assert theta.ravel().tolist() == pytest.approx([w, b], rel=1e-14)
    assert t == 3


def test_clipping_scales_the_whole_gradient() -> None:
    problem = random_problem(4, accumulation_steps=4, optimizer=Optimizer(learning_rate=1.0))
    (free,) = loop.trajectory(problem, "decimal")
    (clipped,) = loop.trajectory(dataclasses.replace(problem, max_norm=0.5), "decimal")
    start = np.vstack([problem.W, problem.b])
    step, short = free.astype(float) - start, clipped.astype(float) - start
    assert np.linalg.norm(step) > 1
    assert np.linalg.norm(short) == pytest.approx(0.5, rel=1e-12)
    assert short / np.linalg.norm(short) == pytest.approx(step / np.linalg.norm(step), rel=1e-12)


def test_learning_rates_are_counted_in_updates() -> None:
    problem = random_problem(5, accumulation_steps=2, epochs=2)
    rates = [0.25, 0.0, 0.25, 0.0]
    first, second, third, fourth = loop.trajectory(
        dataclasses.replace(problem, learning_rates=rates)
    )
    assert (first == second).all()
    assert (third == fourth).all()
    assert (second != third).all()


def test_a_reset_leaves_nothing_behind() -> None:
    kept = np.array([[np.nan, -np.inf, -1.0]])
    assert loop.reset(kept, None).tobytes() == np.zeros((1, 3)).tobytes()


def test_fractions_refuse_square_roots() -> None:
    with pytest.raises(NotImplementedError, match="square root"):
        loop.trajectory(iris_adamw(), "fraction")


def test_the_loss_falls_by_a_factor_of_four_on_the_exact_problem() -> None:
    problem = hadamard(updates=3)
    losses = [loop.loss(theta, problem) for theta in loop.trajectory(problem)]
    assert losses == [4.75, 4.75 / 4, 4.75 / 16]


@pytest.mark.parametrize(
    "stages",
    [
        dataclasses.replace(STAGES, weigh=lambda at: at.number(1)),
        dataclasses.replace(STAGES, accumulate=lambda accumulator, gradient, at: gradient),
        dataclasses.replace(STAGES, boundary=lambda at: (at.micro_step + 1) % 3 == 0),
        dataclasses.replace(STAGES, normalise=lambda accumulator, at: accumulator / 3),
        dataclasses.replace(STAGES, clip=lambda gradient, at: gradient / 2),
        dataclasses.replace(STAGES, learning_rate=lambda at: 0.5),
        dataclasses.replace(STAGES, rule=lambda theta, g, state, *_: (theta, state)),
        mistakes.load("missing-zero-grad").stages,
    ],
    ids=lambda stages: next(iter(stages.replaced)),
)
def test_every_stage_can_be_replaced_and_matters(stages) -> None:
    problem = exact_with_partial_window("float64")
    right = loop.trajectory(problem)
    wrong = loop.trajectory(problem, stages=stages)
    assert len(wrong) != len(right) or any((r != w).any() for r, w in zip(right, wrong))


WEIGHTS = [[1.0, 2.0], [3.0], [1.0, 1.0, 2.0], [5.0]]


def test_a_stage_sees_its_place_and_its_window() -> None:
    problem = random_problem(6, accumulation_steps=3, epochs=2, example_weights=WEIGHTS)
    seen = []

    def weigh(at):
        seen.append((at.epoch, at.micro_step, at.position, at.update, at.window))
        seen.append((at.rows, at.examples, at.window_rows, at.window_examples, at.window_length))
        return loop.weigh(at)

    loop.trajectory(problem, stages=dataclasses.replace(STAGES, weigh=weigh))
    places = [(0, 0, 0, 0, 0), (0, 1, 1, 0, 0), (0, 2, 2, 0, 0), (0, 3, 0, 1, 1), (1, 0, 0, 2, 2)]
    assert (seen[0:10:2], len(seen)) == (places, 16)
    whole = [(rows, examples, 6, 10, 3) for rows, examples in [(2, 3), (1, 3), (3, 4)]]
    assert seen[1::2] == [*whole, (1, 5, 1, 5, 1)] * 2


def test_stages_see_the_gradients_of_one_window_and_whether_the_last_was_an_update() -> None:
    problem = with_one_huge_window(non_finite="skip")
    seen = []

    def report(losses, at):
        seen.append((len(losses), len(at.gradients), at.taken, at.update, at.window))
        return loop.report(losses, at)

    loop.trajectory(problem, stages=dataclasses.replace(STAGES, report=report))
    assert seen == [(1, 1, True, 1, 1), (1, 1, False, 1, 2), (1, 1, True, 2, 3), (1, 1, True, 3, 4)]


def test_a_dropped_window_is_cut_off_and_a_carried_one_is_one_long_epoch() -> None:
    def epochs(policy):
        problem = dataclasses.replace(
            exact_with_partial_window("float64", 2), partial_windows=policy
        )
        return ["".join(epoch) for epoch in loop.epochs(problem, "abcde")]

    assert epochs("apply") == ["abcde", "abcde"]
    assert epochs("drop") == ["abc", "abc"]
    assert epochs("carry") == ["abcdeabcd"]


COSINES = [0.5, (2 + 2**0.5) / 8, 0.25, (2 - 2**0.5) / 8]


@pytest.mark.parametrize(
    ("decay", "rates"),
    [("constant", [0.5] * 4), ("linear", [0.5, 0.375, 0.25, 0.125]), ("cosine", COSINES)],
)
def test_a_schedule_warms_up_and_decays(decay, rates) -> None:
    problem = iris_sgd(learning_rate=0.5, updates=6)
    problem = dataclasses.replace(problem, schedule=Schedule(6, 2, decay))
    found = [float(loop.rate_of(problem, update)) for update in range(6)]
    assert found == pytest.approx([0, 0.25, *rates], rel=1e-15)
    at_once = dataclasses.replace(problem, schedule=Schedule(6, 0, decay))
    assert loop.rate_of(at_once, 0) == 0.5


def test_a_cosine_has_the_digits_of_the_run() -> None:
    with localcontext(Context(prec=loop.DIGITS)):
        assert abs(loop.cosine(Fraction(1, 3)) - Decimal("0.5")) < Decimal("1e-58")
        third = loop.to_number(Decimal, Fraction(2, 3), iris_sgd())
        assert abs(third * 3 - 2) < Decimal("1e-58")


def test_a_scheduled_rate_is_off_by_a_few_roundings_of_its_peak() -> None:
    unit, plain = 2.0**-53, iris_sgd(learning_rate=0.5)
    scheduled = dataclasses.replace(plain, schedule=Schedule(plain.updates))
    number = rounded(unit)
    assert 1 < loop.to_number(number, 0.25, scheduled).error / (0.5 * unit) < 16
    assert loop.to_number(number, 0.25, plain).error == 0
    assert loop.to_number(number, Fraction(1, 4), plain).value == 0.25


def test_a_gradient_below_the_norm_is_left_alone() -> None:
    small = np.array([[0.3, 0.1], [0.2, 0.1]])
    assert loop.clip_to(small, 0.5).tobytes() == small.tobytes()
    zero = np.zeros((2, 2))
    with np.errstate(all="raise"):
        assert (loop.clip_to(zero, 1.0) == zero).all()
        assert loop.clip_to(zero, None) is zero


def test_a_loss_scale_doubles_after_an_interval_and_halves_at_once() -> None:
    scale, seen = loop.Scale(LossScale(4.0, 2)), []
    grow, back_off = scale.grow, scale.back_off
    for change in (grow, grow, grow, back_off, grow, grow, grow, grow):
        change()
        seen.append(scale.value)
    assert seen == [4, 8, 8, 4, 4, 8, 8, 16]
    top = loop.Scale(LossScale(2.0**126, 1))
    for _ in range(2):
        top.grow()
        assert top.value == 2.0**127
    none = loop.Scale(None)
    none.grow()
    none.back_off()
    assert none.value == 1


@pytest.mark.parametrize("weights", [None, WEIGHTS])
def test_a_loss_scale_changes_neither_parameters_nor_losses(weights) -> None:
    plain = random_problem(
        7, accumulation_steps=4, epochs=2, example_weights=weights, non_finite="skip"
    )
    scaled = dataclasses.replace(plain, loss_scale=LossScale(1024.0, 2))
    start = np.vstack([plain.W, plain.b])
    for mine, other in zip(loop.run(plain, losses=True), loop.run(scaled, losses=True)):
        assert (mine.theta == other.theta).all()
        assert (mine.gradient == other.gradient).all()
        assert mine.loss == other.loss == pytest.approx(loop.loss(start, plain), rel=1e-14)
        assert (mine.loss_scale, other.loss_scale) == (1, 1024 * other.updates)
        start = mine.theta
    assert mine.updates == 2
    assert [each.loss for each in loop.run(scaled)] == [0, 0]


def with_one_huge_window(**settings) -> Problem:
    """Four windows; float32 does not hold the squares of the second one's gradient."""
    problem = random_problem(8, accumulation_steps=1, dtype="float32", **settings)
    batches = [(x, y * 1e30 if i == 1 else y) for i, (x, y) in enumerate(problem.micro_batches)]
    return dataclasses.replace(problem, micro_batches=batches)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("precision", ["float32", "fraction", "decimal"])
def test_a_window_that_is_not_finite_is_no_update_in_any_precision(precision) -> None:
    problem = with_one_huge_window(non_finite="skip", loss_scale=LossScale(4.0, 2))
    runs = loop.snapshots(problem, precision)
    assert [each.updates for each in runs] == [1, 1, 2, 3]
    assert [each.loss_scale for each in runs] == [4, 2, 2, 4]
    assert (runs[0].theta == runs[1].theta).all()
    assert loop.updated(problem) == [True, False, True, True]
    assert loop.updated(problem, 2) == [True, False]


def test_a_window_that_is_not_finite_can_be_an_error_or_an_update() -> None:
    with pytest.raises(FloatingPointError, match="update 2: the gradient is not finite"):
        loop.snapshots(with_one_huge_window(non_finite="raise"))
    assert loop.updated(with_one_huge_window(non_finite="raise")) == [True] * 4
    applied = with_one_huge_window()
    assert [each.updates for each in loop.snapshots(applied)] == [1, 2, 3, 4]
    assert loop.updated(applied) == [True] * 4


@pytest.mark.filterwarnings("error")
def test_a_run_may_diverge_without_a_warning() -> None:
    assert np.isnan(loop.trajectory(iris_sgd("float32", learning_rate=1e30))[-1]).all()


def test_numbers_that_carry_errors_are_finite_where_the_dtype_holds_their_squares() -> None:
    at, number = SimpleNamespace(problem=iris_sgd("float32")), rounded(2.0**-24, "float32")
    small, huge = (np.array([[number(1), number(value)]], dtype=object) for value in (2, 1e30))
    with np.errstate(over="ignore"):
        assert [loop.finite(each, at) for each in (small, huge)] == [True, False]
    assert loop.finite(np.array([[Fraction(10**400)]], dtype=object), at)


def test_low_precision_rounds_what_the_matrix_products_get_and_nothing_between() -> None:
    theta = np.array([[1.0], [0.0], [0.0]], dtype="float32")
    x, y = (np.array(row, "float32") for row in ([[1 + 2.0**-12, 3]], [[1 - 2.0**-13]]))
    found = loop.low_precision_gradient(theta, x, y, np.float32(0.5), "float16")
    assert (found.dtype, found.tolist()) == (np.float32, [[2.0**-13], [3 * 2.0**-13], [2.0**-13]])
    far = loop.low_precision_gradient(theta, x, y - 1, np.float32(1), "float16")
    assert far.tolist() == [[2.0], [6.0], [2.0]]


def test_low_precision_is_for_floats_alone_and_tells_no_loss() -> None:
    problem = Problem(
        [[1.0]], [0.0], [([[1 + 2.0**-12]], [[0.0]])], dtype="float32", compute_dtype="float16",
        optimizer=Optimizer(learning_rate=0.25),
    )  # fmt: skip
    (low,) = loop.run(problem, losses=True)
    assert (low.theta.tolist(), low.loss) == ([[0.5], [-0.5]], 0)
    (exact,) = loop.run(problem, "fraction", losses=True)
    assert exact.theta[1, 0] == -Fraction(1 + 2.0**-12) / 2
    assert exact.loss == Fraction(1 + 2.0**-12) ** 2


def test_only_what_is_shown_is_yielded() -> None:
    problem = random_problem(10, accumulation_steps=1)
    stages = dataclasses.replace(STAGES, shows=lambda at: at.window % 2 == 0)
    every, second = loop.trajectory(problem), loop.trajectory(problem, stages=stages)
    assert [each.tobytes() for each in second] == [each.tobytes() for each in every[1::2]]


def test_the_stages_that_are_replaced_are_known() -> None:
    stages = dataclasses.replace(STAGES, reset=loop.normalise, shows=loop.shows)
    assert (STAGES.replaced, stages.replaced) == ({}, {"reset": loop.normalise})


def test_decay_spares_the_bias_unless_it_is_asked_for() -> None:
    for decay_bias in (True, False):
        problem = random_problem(9, decay_bias=decay_bias)
        at = loop.Place(problem, float, np.float64, None, STAGES)
        assert at.decays == [True] * 4 + [decay_bias]
