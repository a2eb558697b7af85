"""Gradients that are sums over time: one backward, several backwards, the oracle, with counts."""

import dataclasses
import functools
import itertools
import operator
from fractions import Fraction

import hypothesis
import numpy as np
import pytest
from conftest import random_problem
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from lockstep.oracle import recurrent
from lockstep.oracle.compare import compare_bits, compare_bounds
from lockstep.oracle.recurrent import MP, Recurrent
from lockstep.oracle.rounding import sums_are_exact
from lockstep.oracle.tracked import rounded
from lockstep.workers.pool import WorkerError

DTYPES = ["float64", "float32"]
NUMBERS = 26 + 9  # of U, V, c, W, b, and of the last hidden state
# What two ways to compute the same, each with 60 digits, must have in common.
ALMOST_ALL_DIGITS = MP.mpf(10) ** (10 - recurrent.DIGITS)
# A worker trains; so its port is one that reads a recurrent problem where the test has put it.
PORT = """
from pathlib import Path
from types import SimpleNamespace

from safetensors.numpy import load_file, save_file
from {package} import recurrent


def train(problem):
    arrays = load_file(Path(__file__).with_name("given.safetensors"))
    pairs, length = map(int, arrays.pop("settings"))
    given = SimpleNamespace(**arrays, pairs=pairs, length=length or None)
    gradients = recurrent.gradient(given)
    found = {{str(index): array.copy() for index, array in enumerate(gradients)}}
    save_file(found, Path(__file__).with_name("found.safetensors"))
    yield problem.W, problem.b
"""


@pytest.fixture
def gradient(all_workers, tmp_path):
    """Runs `gradient` of a framework, or of a mutant's package, in the framework's worker."""

    def run(framework, problem, package=None):
        package = package or f"{framework}_impl"
        port = f"port_{package}_{tmp_path.name}".replace("-", "_")
        (tmp_path / f"{port}.py").write_text(PORT.format(package=package))
        arrays = {k: v for k, v in vars(problem).items() if isinstance(v, np.ndarray)}
        settings = np.array([problem.pairs, problem.length or 0])
        save_file(arrays | {"settings": settings}, tmp_path / "given.safetensors")
        if str(tmp_path) not in all_workers[framework].path:
            all_workers[framework].path.append(str(tmp_path))
        all_workers[framework].train(port, random_problem(0), 1)
        found = load_file(tmp_path / "found.safetensors")
        return [found[name] for name in sorted(found)]

    return run


def example(dtype, length=None) -> Recurrent:
    """Seven time steps of three examples, with 2 features, 3 units and 2 outputs."""
    rng = np.random.default_rng(0)
    shapes = [(2, 3), (3, 3), (3,), (3, 2), (2,), (7, 3, 2), (7, 3, 2), (3, 3)]
    arrays = [rng.normal(scale=0.6, size=shape).astype(dtype) for shape in shapes]
    return Recurrent(*arrays, pairs=21, length=length)


def chunk(problem, start, stop, h) -> Recurrent:
    """A part of a problem, from a hidden state, with the whole problem's pairs."""
    x, y = problem.x[start:stop], problem.y[start:stop]
    return dataclasses.replace(problem, x=x, y=y, h=h, length=None)


def matrices(arrays) -> list:
    return [np.atleast_2d(array) for array in arrays]


def same_bits(expected, actual):
    return compare_bits(matrices(expected), matrices(actual))


def inside(problem, actual):
    """Compare with the oracle and its bounds: weight by weight, and the hidden state."""
    expected, bounds = recurrent.exact(problem), recurrent.bounds(problem)
    return compare_bounds(matrices(expected), matrices(actual), matrices(bounds))


@pytest.mark.parametrize("length", [None, 1, 3])
@pytest.mark.parametrize("dtype", DTYPES)
def test_gradients_inside_the_bound(gradient, framework, dtype, length) -> None:
    problem = example(dtype, length)
    comparison = inside(problem, gradient(framework, problem))
    assert comparison.same, comparison.outside
    assert comparison.compared == NUMBERS


@pytest.mark.parametrize("dtype", DTYPES)
def test_several_backwards_add_up_in_bits(gradient, framework, dtype) -> None:
    problem = example(dtype, length=3)
    total, h = [np.zeros_like(weight) for weight in problem.weights], problem.h
    for start in (0, 3, 6):
        *gradients, h = gradient(framework, chunk(problem, start, start + 3, h))
        total = [sum_ + gradient for sum_, gradient in zip(total, gradients, strict=True)]
    comparison = same_bits([*total, h], gradient(framework, problem))
    assert comparison.same, comparison.first
    assert comparison.compared == NUMBERS


@pytest.mark.parametrize("length", [7, 8])
@pytest.mark.parametrize("dtype", DTYPES)
def test_one_chunk_is_one_backward_in_bits(gradient, framework, dtype, length) -> None:
    whole, chunked = (gradient(framework, example(dtype, each)) for each in (None, length))
    comparison = same_bits(whole, chunked)
    assert comparison.same, comparison.first
    assert comparison.compared == NUMBERS


@pytest.mark.parametrize("length", [1, 3, 6])
def test_the_truncated_gradient_is_another(gradient, framework, length) -> None:
    truncated = gradient(framework, example("float64", length))
    comparison = inside(example("float64"), truncated)
    # W and b act on the prediction of their own time step alone: nothing of theirs is left out.
    assert comparison.outside == (6, 9, 3, 0, 0, 0)
    assert comparison.compared == NUMBERS
    pairs = list(zip(comparison.distances, comparison.bounds, strict=True))
    assert all(distance > 1e8 * bound for distance, bound in pairs[:3])


# One tape, or one differentiated function, over all chunks: h has a past, which may be cut off.
ONE_GRAPH = {
    "tensorflow": (
        "    for start in range(0, len(x), length):\n",
        "    with tf.GradientTape() as tape:\n"
        "        loss = 0.0\n"
        "        for start in range(0, len(x), length):\n"
        "            chunk = x[start : start + length], y[start : start + length]\n"
        "            h = {cut}\n"
        "            share, h = chunk_loss(weights, chunk, h, pairs)\n"
        "            loss += share\n"
        "    return tape.gradient(loss, weights), h\n"
        "    for start in []:\n",
    ),
    "jax": (
        "    for start in range(0, len(x), length):\n",
        "    def total(weights, h):\n"
        "        loss = 0.0\n"
        "        for start in range(0, len(x), length):\n"
        "            chunk = x[start : start + length], y[start : start + length]\n"
        "            h = {cut}\n"
        "            share, h = chunk_loss(weights, chunk, h, pairs)\n"
        "            loss += share\n"
        "        return loss, h\n"
        "    return jax.grad(total, has_aux=True)(weights, h)\n"
        "    for start in []:\n",
    ),
    # The graph of the last chunk hangs on that of the one before, if it is kept and not cut.
    "pytorch": (
        "        h = h.detach()\n"
        "        loss, h = chunk_loss(weights, chunk, h, pairs)\n"
        "        # gradient + accumulate: backward() adds into .grad.\n"
        "        loss.backward()\n",
        "        h = {cut}\n"
        "        loss, h = chunk_loss(weights, chunk, h, pairs)\n"
        "        loss.backward(retain_graph=True)\n",
    ),
}
CUT = {
    "pytorch": "h.detach()",
    "tensorflow": "tf.stop_gradient(h)",
    "jax": "jax.lax.stop_gradient(h)",
}


@pytest.mark.parametrize("cut", [True, False], ids=["cut", "not cut"])
def test_one_graph_over_all_chunks(gradient, framework, mutant, cut) -> None:
    old, new = ONE_GRAPH[framework]
    new = new.format(cut=CUT[framework] if cut else "h")
    package = mutant(framework, "recurrent.py", old, new)
    actual = gradient(framework, example("float64", 3), package)
    truncated, full = (inside(example("float64", length), actual) for length in (3, None))
    right, wrong = (truncated, full) if cut else (full, truncated)
    assert right.same, right.outside
    assert wrong.outside[:3] == (6, 9, 3)
    assert right.compared == wrong.compared == NUMBERS


def test_without_detach_pytorch_objects(gradient, mutant) -> None:
    package = mutant("pytorch", "recurrent.py", "        h = h.detach()\n", "")
    with pytest.raises(WorkerError, match="backward through the graph a second time"):
        gradient("pytorch", example("float64", 3), package)


RESET = "    for weight in weights:\n        weight.grad = None\n"


@pytest.mark.parametrize("length", [None, 3])
@pytest.mark.parametrize("reset", [True, False], ids=["reset", "not reset"])
def test_pytorch_starts_from_an_empty_accumulator(
    gradient, mutant, tmp_path, length, reset
) -> None:
    call = "chunk_gradient(*task)" if length is None else "truncated_gradient(*task, p.length)"
    once, twice = f"gradients, h = {call}", f"for _ in (1, 2): gradients, h = {call}"
    package = mutant("pytorch", "recurrent.py", once, twice)
    source = tmp_path / package / "recurrent.py"
    assert source.read_text().count(RESET) == 2
    if not reset:
        source.write_text(source.read_text().replace(RESET, ""))
    problem = example("float64", length)
    comparison = same_bits(gradient("pytorch", problem), gradient("pytorch", problem, package))
    assert comparison.outside == ((0,) * 6 if reset else (6, 9, 3, 6, 2, 0))
    assert comparison.compared == NUMBERS


TIME = "        time = slice(start, start + length)\n"
EVERYWHERE = {
    "sign-of-the-recurrence": ("+ h @ V", "- h @ V"),
    "last-time-step-of-a-chunk-dropped": (TIME, TIME.replace("length", "length - 1")),
    "chunks-overlap": (TIME, TIME.replace("length", "length + 1")),
    # Each chunk divided by its own pairs: a mean of means, times their number.
    "chunks-own-pairs": (TIME, TIME + "        pairs = len(x[time]) * x.shape[1]\n"),
}
CARRIED = "        gradients, h = chunk_gradient(\n"
ADDED = "        sums = [t + g for t, g in zip(sums, gradients)]\n"
OWN_SUM = {
    "hidden-state-not-carried": (CARRIED, CARRIED.replace("h =", "_ =")),
    "last-chunk-alone": (ADDED, "        sums = gradients\n"),
}
DETACH = "        h = h.detach()\n"
HERE = {
    "pytorch": {
        "hidden-state-not-carried": (DETACH, "        h = 0 * h.detach()\n"),
        "last-chunk-alone": (DETACH, DETACH + RESET.replace("    ", "        ")),
        "cut-at-every-time-step": ("cell(x, h, U, V, c)", "cell(x, h.detach(), U, V, c)"),
        "float32-accumulator": (
            DETACH,
            DETACH + "        for w in weights if start else ():\n"
            "            w.grad = w.grad.float().double()\n",
        ),
    },
    "tensorflow": OWN_SUM
    | {
        "cut-at-every-time-step": ("cell(x, h, U, V, c)", "cell(x, tf.stop_gradient(h), U, V, c)"),
        "float32-accumulator": (
            ADDED,
            ADDED.replace("t + g", "tf.cast(tf.cast(t + g, tf.float32), tf.float64)"),
        ),
    },
    "jax": OWN_SUM
    | {
        "cut-at-every-time-step": (
            "cell(x, h, U, V, c)",
            "cell(x, jax.lax.stop_gradient(h), U, V, c)",
        ),
        "float32-accumulator": (
            ADDED,
            ADDED.replace("t + g", "(t + g).astype(jnp.float32).astype(jnp.float64)"),
        ),
    },
}
MUTANTS = [
    pytest.param(name, *change, id=f"{name}-{mutant}")
    for name, changes in HERE.items()
    for mutant, change in (EVERYWHERE | changes).items()
]


@pytest.mark.parametrize(("name", "old", "new"), MUTANTS)
def test_mutants_are_outside_the_bound(gradient, mutant, name, old, new) -> None:
    problem = example("float64", 3)
    comparison = inside(problem, gradient(name, problem, mutant(name, "recurrent.py", old, new)))
    assert sum(comparison.outside) >= 6
    assert comparison.compared == NUMBERS


def at_rest(dtype, length=None) -> Recurrent:
    """Integers of which x U = 0, c = 0, h V = 0: nothing moves, but every weight matters.

    tanh(0) = 0 and its slope 1 are exact, and pairs = 16 is a power of two: so is the gradient,
    which goes back through V, V V and V V V.
    """
    rng = np.random.default_rng(1)
    arrays = [
        np.array([[1, -2, 1], [-1, 2, -1]]),
        np.array([[1, -1, 2], [-1, 1, -2], [1, 2, -1]]),
        np.zeros(3),
        rng.integers(-4, 5, (3, 2)),
        rng.integers(-4, 5, 2),
        rng.integers(-4, 5, (4, 4, 1)) * np.ones(2),
        rng.integers(-8, 9, (4, 4, 2)),
        rng.integers(-4, 5, (4, 1)) * np.array([1, 1, 0]),
    ]
    return Recurrent(*(array.astype(dtype) for array in arrays), pairs=16, length=length)


def fractions_that_no_order_rounds(terms):
    assert sums_are_exact(terms, 24)
    return recurrent.in_order(terms)


@pytest.mark.parametrize("dtype", DTYPES)
def test_at_rest_in_bits(gradient, framework, dtype) -> None:
    found = []
    for length in (None, 2, 1):
        problem = at_rest(dtype, length)
        number = recurrent.cast(problem, Fraction)
        expected = recurrent.gradient(number, fractions_that_no_order_rounds)
        # All but W's gradient, which is h's, and h: a framework's zeros may be -0.
        assert [bool(np.any(each)) for each in expected] == [True, True, True, False, True, False]
        actual = [each + 0.0 for each in gradient(framework, problem)]
        comparison = same_bits(expected, actual)
        assert comparison.same, comparison.first
        assert comparison.compared == 26 + 12
        found.append(actual)
    whole, halves, quarters = found
    assert any(same_bits(whole, halves).outside)
    assert any(same_bits(halves, quarters).outside)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_librarys_tanh_is_as_good_as_the_bound_takes_it_to_be(gradient, framework, dtype) -> None:
    """From where it is the identity to where it is 1: h = tanh(1 U), one time step, one example."""
    a = np.concatenate([np.linspace(-10, 10, 601), np.logspace(-6, 1, 400)]).astype(dtype)
    zeros, one = np.zeros_like(a), np.ones((1, 1, 1), dtype)
    sides = a[None], np.diag(zeros), zeros, zeros[:, None], one[0, 0], one, one, zeros[None]
    *_, h = gradient(framework, Recurrent(*sides, pairs=1))
    number = rounded(float(np.finfo(dtype).eps) / 2)
    a = a.astype(np.float64).astype(object)
    expected = recurrent.fractions(recurrent.tanh(np.frompyfunc(MP.mpf, 1, 1)(a)))
    bounds = recurrent.errors(recurrent.tanh(np.frompyfunc(number, 1, 1)(a)))
    comparison = compare_bounds([expected[None]], [h], [bounds[None]])
    assert comparison.same, comparison.first
    assert comparison.compared == 1001


def test_the_oracle_is_the_derivative_where_each_time_step_has_a_copy_of_the_weights() -> None:
    """By a complex step: f'(w) = Im f(w + i e) / e + O(e^2), with no difference that cancels."""
    problem = recurrent.cast(example("float64"), MP.mpf)
    parts, _ = recurrent.contributions(problem)
    step, count = MP.mpf(10) ** -recurrent.DIGITS, 0
    for t, i in np.ndindex(len(problem.x), 5):
        part = parts[t][i].sum(axis=0)
        for index in np.ndindex(part.shape):
            copies = [[*problem.weights] for _ in problem.x]
            copies[t][i] = copies[t][i].copy()
            copies[t][i][index] += MP.mpc(0, step)
            derivative = recurrent.loss(problem, copies).imag / step
            assert abs(derivative - part[index]) < ALMOST_ALL_DIGITS
            count += 1
    assert count == 7 * 26


def test_the_oracles_gradient_is_the_sum_over_time_steps() -> None:
    problem = recurrent.cast(example("float64"), MP.mpf)
    parts, _ = recurrent.contributions(problem)
    summed = [sum(part[i].sum(axis=0) for part in parts) for i in range(5)]
    pairs = list(zip(recurrent.gradient(problem), summed, strict=False))
    assert all((abs(whole - total) < ALMOST_ALL_DIGITS).all() for whole, total in pairs)
    assert sum(whole.size for whole, _ in pairs) == 26
    assert all(abs(part[i]).max() > 0.001 for part in parts for i in range(5))


def test_the_truncated_oracle_is_the_sum_of_its_chunks() -> None:
    problem = recurrent.cast(example("float64", 3), MP.mpf)
    total, h = [0 * weight for weight in problem.weights], problem.h
    for start in (0, 3, 6):
        *gradients, h = recurrent.gradient(chunk(problem, start, start + 3, h))
        total = [sum_ + gradient for sum_, gradient in zip(total, gradients, strict=True)]
    pairs = list(zip(recurrent.gradient(problem), [*total, h], strict=True))
    assert all((abs(whole - sum_) < ALMOST_ALL_DIGITS).all() for whole, sum_ in pairs)
    assert sum(whole.size for whole, _ in pairs) == NUMBERS


@given(st.lists(st.floats(-1e9, 1e9), min_size=2, max_size=5))
@hypothesis.example([1e16, -1e16, 1.0])
def test_no_order_of_a_sum_leaves_its_bound(terms) -> None:
    column = np.frompyfunc(rounded(2.0**-53), 1, 1)(np.array(terms, dtype=object))
    (bound,) = recurrent.errors(recurrent.in_any_order(column[:, None]))
    exact = sum(map(Fraction, terms))
    for order in itertools.permutations(terms):
        assert abs(Fraction(functools.reduce(operator.add, order)) - exact) <= Fraction(bound)


def test_the_bound_of_one_order_is_not_that_of_another() -> None:
    terms = np.frompyfunc(rounded(2.0**-53), 1, 1)(np.array([1e16, -1e16, 1.0], dtype=object))
    assert (1e16 + 1.0) - 1e16 != 1.0
    assert recurrent.in_order(terms).error < 1e-15
    assert recurrent.errors(recurrent.in_any_order(terms[:, None])) > 1


@given(st.floats(-5, 5), st.floats(0, 1), st.floats(-1, 1))
def test_tanh_carries_the_error_of_its_argument(a, error, share) -> None:
    bound = recurrent.tanh(rounded(0.0)(a, error)).error
    moved = abs(MP.tanh(MP.mpf(a) + MP.mpf(error) * share) - MP.tanh(a))
    assert moved <= bound * (1 + 2.0**-40) + 2.0**-1000


def test_a_difference_of_1e_10_is_outside_the_bound() -> None:
    problem = example("float64")
    expected, bounds = recurrent.exact(problem), recurrent.bounds(problem)
    off = [each.astype(np.float64) * (1 + 1e-10) for each in expected]
    comparison = compare_bounds(matrices(expected), matrices(off), matrices(bounds))
    assert comparison.compared == NUMBERS
    assert sum(comparison.outside) >= NUMBERS - 2


def test_a_tanh_that_is_no_fraction_is_refused() -> None:
    with pytest.raises(ValueError, match="is no fraction"):
        recurrent.gradient(recurrent.cast(example("float64"), Fraction))
