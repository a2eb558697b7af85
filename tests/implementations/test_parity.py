"""The three implementations against the oracle and against each other, with counts."""

import dataclasses
import itertools
from operator import neg

import numpy as np
import pytest
from conftest import exact_with_partial_window, exact_with_wide_numbers, random_problem
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lockstep.frameworks import FRAMEWORKS
from lockstep.oracle import loop, rounding
from lockstep.oracle.compare import compare_bits, compare_bounds
from lockstep.problem import Optimizer, Problem, Schedule, hadamard, iris_adamw, iris_sgd, split
from lockstep.workers.pool import Refused

# A worker lives as long as the session and keeps nothing between two problems.
many = settings(
    deadline=None,
    max_examples=15,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
LENGTHS = {"float64": 48, "float32": 20}


@pytest.mark.parametrize("dtype", LENGTHS)
@pytest.mark.parametrize("momentum", [0.0, 0.5])
def test_exact_problem_in_bits(worker, framework, dtype, momentum) -> None:
    updates = LENGTHS[dtype]
    problem = hadamard(dtype, updates=updates, momentum=momentum)
    actual = worker.train(f"{framework}_impl.training", problem)
    comparison = compare_bits(loop.trajectory(problem, "fraction"), actual)
    assert comparison.same, comparison.first
    assert comparison.compared == updates * 15


@pytest.mark.parametrize("dtype", LENGTHS)
@pytest.mark.parametrize("pair", [*itertools.combinations(FRAMEWORKS, 2)], ids="-".join)
def test_exact_problem_in_bits_for_each_pair(all_workers, dtype, pair) -> None:
    problem = hadamard(dtype, accumulation_steps=3, updates=LENGTHS[dtype])
    left, right = (all_workers[name].train(f"{name}_impl.training", problem) for name in pair)
    comparison = compare_bits(left, right)
    assert comparison.same, comparison.first
    assert comparison.compared == LENGTHS[dtype] * 15


@pytest.mark.parametrize("dtype", LENGTHS)
def test_exact_partial_windows_in_bits(worker, framework, dtype) -> None:
    problem = exact_with_partial_window(dtype, epochs=4)
    expected = loop.trajectory(problem, "fraction")
    assert rounding.exact_updates(problem, expected) == 8
    comparison = compare_bits(expected, worker.train(f"{framework}_impl.training", problem))
    assert comparison.same, comparison.first
    assert comparison.compared == 8 * 15


@pytest.mark.parametrize("dtype", LENGTHS)
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_iris_inside_the_bound(worker, framework, dtype, momentum) -> None:
    problem = iris_sgd(dtype, momentum=momentum)
    exact = loop.trajectory(problem, "decimal")
    bounds = list(rounding.rounding_bounds(problem, exact))
    actual = worker.train(f"{framework}_impl.training", problem)
    comparison = compare_bounds(exact, actual, bounds)
    assert comparison.same, comparison.first
    assert comparison.compared == 30 * 15


def test_a_window_is_one_large_batch(worker, framework) -> None:
    batch = worker.train(f"{framework}_impl.training", hadamard(accumulation_steps=1))
    for accumulation_steps in (2, 5, 8):
        problem = hadamard(accumulation_steps=accumulation_steps)
        comparison = compare_bits(batch, worker.train(f"{framework}_impl.training", problem))
        assert comparison.same, comparison.first
        assert comparison.compared == 48 * 15


def test_a_partial_window_is_divided_by_its_own_examples(worker, framework) -> None:
    """Four examples after four: the second window alone, from where the first one ended."""
    problem = exact_with_partial_window("float64", epochs=1)
    first, second = worker.train(f"{framework}_impl.training", problem)
    alone = dataclasses.replace(
        problem, W=first[:-1], b=first[-1], micro_batches=problem.micro_batches[3:]
    )
    comparison = compare_bits([second], worker.train(f"{framework}_impl.training", alone))
    assert comparison.same, comparison.first
    assert comparison.compared == 15


def test_exact_wide_numbers_in_bits(worker, framework) -> None:
    problem = exact_with_wide_numbers()
    actual = worker.train(f"{framework}_impl.training", problem)
    comparison = compare_bits(loop.trajectory(problem, "fraction"), actual)
    assert comparison.same, comparison.first
    assert comparison.compared == 16 * 15


# PyTorch's compiled form needs a C++ compiler and its time: test_compiled.py, marked slow.
FORMS = [
    ("pytorch", "bitwise", 100),
    ("tensorflow", "bitwise", 100),
    ("tensorflow", "compiled", 100),
    ("jax", "bitwise", 10),  # all hundred, op by op, are marked slow
    ("jax", "compiled", 100),
]


@pytest.mark.parametrize(("name", "form", "updates"), FORMS)
@pytest.mark.parametrize("dtype", LENGTHS)
def test_adamw_on_iris_in_bits(all_workers, name, form, updates, dtype) -> None:
    problem = iris_adamw(dtype)
    actual = all_workers[name].train(f"{name}_impl.{form}", problem, updates)
    comparison = compare_bits(loop.trajectory(problem, updates=updates), actual)
    assert comparison.same, comparison.first
    assert comparison.compared == updates * 15


@pytest.mark.slow
@pytest.mark.parametrize("dtype", LENGTHS)
def test_adamw_on_iris_in_bits_op_by_op_in_jax(all_workers, dtype) -> None:
    problem = iris_adamw(dtype)
    actual = all_workers["jax"].train("jax_impl.bitwise", problem)
    comparison = compare_bits(loop.trajectory(problem), actual)
    assert comparison.same, comparison.first
    assert comparison.compared == 1500


def numbers(count: int):
    """Numbers with one decimal, as people measure, and numbers with all their bits."""
    measured = st.integers(-80, 80).map(lambda n: n / 10)
    positive = st.floats(0.01, 8)
    return st.lists(measured | positive | positive.map(neg), min_size=count, max_size=count)


@st.composite
def problems(draw, single_examples: bool, optimizers) -> Problem:
    features, outputs = draw(st.integers(1, 4)), draw(st.integers(1, 3))
    size = st.just(1) if single_examples else st.integers(1, 5)
    sizes = draw(st.lists(size, min_size=1, max_size=5))
    x = np.reshape(draw(numbers(sum(sizes) * features)), (-1, features))
    y = np.reshape(draw(numbers(sum(sizes) * outputs)), (-1, outputs))
    return Problem(
        np.reshape(draw(numbers(features * outputs)), (features, outputs)),
        draw(numbers(outputs)),
        split(x, y, sizes),
        epochs=draw(st.integers(1, 2)),
        accumulation_steps=draw(st.integers(1, 4)),
        optimizer=draw(optimizers),
        dtype=draw(st.sampled_from(["float64", "float32"])),
    )


rates = st.floats(1e-4, 5e-3)
momenta = st.sampled_from([0.0, 0.5, 0.9])
any_sgd = st.builds(Optimizer, st.just("sgd"), rates, momenta)
decays = st.sampled_from([0.0, 0.01])
sgd_with_decay = st.builds(Optimizer, st.just("sgd"), rates, momenta, weight_decay=decays)
any_adamw = st.builds(
    Optimizer,
    st.just("adamw"),
    rates,
    betas=st.tuples(st.floats(0, 0.99), st.floats(0.5, 0.9999)),
    weight_decay=decays,
)


@many
@given(problem=problems(False, any_sgd))
def test_random_problems_inside_the_bound(worker, framework, problem) -> None:
    exact = loop.trajectory(problem, "decimal")
    bounds = list(rounding.rounding_bounds(problem, exact))
    actual = worker.train(f"{framework}_impl.training", problem)
    comparison = compare_bounds(exact, actual, bounds)
    assert comparison.same, comparison.first
    assert comparison.compared == problem.updates * (problem.W.size + problem.b.size)


@many
@given(problem=problems(True, sgd_with_decay | any_adamw))
def test_random_problems_in_bits(worker, framework, problem) -> None:
    actual = worker.train(f"{framework}_impl.bitwise", problem)
    comparison = compare_bits(loop.trajectory(problem), actual)
    assert comparison.same, comparison.first
    assert comparison.compared == problem.updates * (problem.W.size + problem.b.size)


@settings(many, max_examples=8)
@given(problem=problems(True, sgd_with_decay | any_adamw))
def test_random_problems_in_bits_compiled(all_workers, problem) -> None:
    for name in ("tensorflow", "jax"):
        actual = all_workers[name].train(f"{name}_impl.compiled", problem)
        comparison = compare_bits(loop.trajectory(problem), actual)
        assert comparison.same, (name, comparison.first)
        assert comparison.compared == problem.updates * (problem.W.size + problem.b.size)


def test_learning_rates_in_bits(worker, framework) -> None:
    problem = dataclasses.replace(iris_adamw(updates=10), learning_rates=[0.1, 0.03] * 5)
    actual = worker.train(f"{framework}_impl.bitwise", problem, 4)
    comparison = compare_bits(loop.trajectory(problem, updates=4), actual)
    assert comparison.same, comparison.first
    assert comparison.compared == 60


ONE_BY_ONE = split(*random_problem(6).examples, [1] * 7)


@pytest.mark.parametrize(
    ("form", "change"),
    [
        ("training", {"decay_bias": False}),
        ("training", {"partial_windows": "drop"}),
        ("training", {"schedule": Schedule(4)}),
        ("training", {"learning_rates": [0.1] * 4}),
        ("training", {"max_norm": 1.0}),
        ("bitwise", {}),
        ("bitwise", {"optimizer": Optimizer("rmsprop"), "micro_batches": ONE_BY_ONE}),
        ("bitwise", {"decay_bias": False, "micro_batches": ONE_BY_ONE}),
    ],
)
def test_what_is_not_supported_is_refused(worker, framework, form, change) -> None:
    problem = dataclasses.replace(random_problem(6), **change)
    with pytest.raises(Refused):
        worker.train(f"{framework}_impl.{form}", problem)
