"""The oracle against itself: precisions agree, windows are batches, stages can be replaced."""

import dataclasses
from fractions import Fraction

import numpy as np
import pytest
from conftest import exact_with_partial_window, random_problem

from lockstep import mistakes
from lockstep.oracle import loop
from lockstep.oracle.loop import STAGES
from lockstep.problem import Optimizer, Problem, hadamard, iris_adamw, iris_sgd


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
