"""What rounding can do to a run: nothing on an exact problem, at most a bound on any other.

Notation: u is the unit roundoff, 2^-53 or 2^-24; gamma(k) = k u / (1 - k u) bounds the relative
error of a product of k factors 1 + d, |d| <= u (Higham, Accuracy and Stability of Numerical
Algorithms, 2nd ed., lemma 3.1), and so that of every term of a sum that goes through k
operations, in whatever order they are summed, with or without fused multiply-add.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from decimal import Decimal, localcontext
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np

from lockstep.compare import exact
from lockstep.problem import Array, Problem, require
from lockstep.reference import DIGITS, learning_rate, to_number
from lockstep.rounded import Rounded, rounded
from lockstep.rules import RULES, Constants, State, constants, initial_state

PRECISION = {"float64": 53, "float32": 24, "float16": 11, "bfloat16": 8}
# Errors travel as the derivative of the update takes them; twice that covers what is beyond the
# first order, and that the bounds are evaluated in float64 themselves.
SLACK = 2.0
# Of a derivative by difference quotient, in DIGITS digits.
DIFFERENCE = Decimal("1e-30")
# A schedule is evaluated on the host, in a few float64 operations of numbers up to its peak.
SCHEDULE_ERROR = 8 * 2.0**-53


class Window(NamedTuple):
    """A window's examples, with the bias as the weight of a feature that is 1.

    x: (n, features + 1); y: (n, outputs); shares: (n, 1), by which each example's squared error is
    multiplied; additions: at most so many go into one sum over the window, within its largest
    micro-batch and over its micro-batches.
    """

    x: Array
    y: Array
    shares: Array
    additions: int


def windows(problem: Problem) -> Iterator[Window]:
    """The windows of a run."""
    count = len(problem.micro_batches)
    stacks: dict[tuple[int, ...], Window] = {}
    for window in problem.windows:
        indices = tuple(i % count for i in window)
        if indices not in stacks:
            stacks[indices] = stacked(problem, indices)
        yield stacks[indices]


def stacked(problem: Problem, indices: Sequence[int]) -> Window:
    """The micro-batches of a window, one above the other."""
    xs, ys = zip(*(problem.micro_batches[i] for i in indices), strict=True)
    x = np.concatenate(xs).astype(np.float64)
    weights = np.ones(len(x))
    if problem.example_weights is not None:
        weights = np.concatenate([problem.example_weights[i] for i in indices]).astype(np.float64)
    return Window(
        np.hstack([x, np.ones((len(x), 1))]),
        np.concatenate(ys).astype(np.float64),
        (weights / weights.sum())[:, None],
        max(map(len, xs)) + len(xs),
    )


class Bounds(NamedTuple):
    """The largest error that rounding can cause, of W above b and of each array of the state."""

    theta: Array
    state: State


def rounding_bounds(problem: Problem, trajectory: Sequence[Array]) -> Iterator[Array]:
    """Yield, for every update, the largest error of W above b that rounding can cause."""
    for bounds in bounds_with_state(problem, trajectory):
        yield bounds.theta


def bounds_with_state(
    problem: Problem, trajectory: Sequence[Array], gradients: Sequence[Array] | None = None
) -> Iterator[Bounds]:
    """Yield, for every update, the largest error that rounding can cause, number by number.

    `trajectory` is the exact one. One window maps z, which is W above b and the optimizer's state,
    to another z; A is the derivative of that map. If every update k adds a rounding error of at
    most d_k, the error after update t is, to first order, at most

        sum over k <= t of |A_t A_(t-1) ... A_(k+1)| d_k,

    because errors travel through the exact map, contracting where it contracts. d_k bounds the
    roundings of one window: of its gradient, by counting operations, and of the optimizer's rule,
    by running the oracle's rule on numbers that carry their error (`Rounded`). In open loop,
    the optimizer takes recorded `gradients`, which have no error. Valid barring
    underflow, and where no maximum, sign or clip threshold is so near that rounding decides it.
    Raises ProblemError where the run leaves the range of its dtype, or where there is no bound:
    a quotient by a number that rounding can make 0.
    """
    theta = np.vstack([problem.W, problem.b]).astype(np.float64)
    state = initial_state(problem.optimizer, np.zeros_like(theta))
    size = theta.size * (1 + len(state))
    # The map of all updates since, for each past update, and what it carries: the local errors.
    carried, local = np.zeros((0, size, size)), np.zeros((0, size))
    largest = float(np.finfo(problem.dtype).max)
    for update, (window, exact_theta) in enumerate(zip(windows(problem), trajectory, strict=False)):
        if gradients is None:
            slope = clipped(problem, *differentiate(problem, window, theta))
        else:
            slope = Slope(gradients[update], 0 * theta, np.zeros((theta.size,) * 2))
        step = analyse(problem, slope, theta, state, update)
        carried = np.concatenate([through(step.derivative, carried), np.eye(size)[None]])
        local = np.concatenate([local, step.error[None]])
        error = SLACK * np.einsum("kij,kj->i", abs(carried), local)
        theta, state = exact_theta.astype(np.float64), step.state
        bounds = dict(zip(["theta", *state], error.reshape(-1, *theta.shape), strict=True))
        require(
            bool((abs(theta) + bounds["theta"] < largest).all() and np.isfinite(error).all()),
            f"the run diverges: update {update + 1} has no bound in {problem.dtype}, choose a"
            " smaller learning rate (or it divides by a number that rounding can make 0)",
        )
        yield Bounds(bounds.pop("theta"), bounds)


def through(derivative: Array, carried: Array) -> Array:
    """derivative @ each of the carried maps, as one product."""
    size = len(derivative)
    columns = carried.transpose(1, 0, 2).reshape(size, -1)
    return (derivative @ columns).reshape(size, -1, size).transpose(1, 0, 2)


class Step(NamedTuple):
    """One update: its derivative (size, size), the error that it adds (size,), its new state."""

    derivative: Array
    error: Array
    state: State


class Slope(NamedTuple):
    """A gradient, its error, both like theta, and its derivative by theta (size, size)."""

    gradient: Array
    error: Array
    derivative: Array


def differentiate(problem: Problem, window: Window, theta: Array) -> Slope:
    """The window's gradient at theta."""
    x, y, shares, _ = window
    # W above b is flat by rows, and each output has the same second derivative.
    derivative = np.kron(2 * x.T @ (shares * x), np.eye(theta.shape[1]))
    gradient = 2 * x.T @ (shares * (x @ theta - y))
    return Slope(gradient, gradient_error(problem, window, theta), derivative)


def analyse(problem: Problem, slope: Slope, theta: Array, state: State, update: int) -> Step:
    """The derivative of an update at (theta, state), and what rounding adds in it."""
    arrays = {"theta": theta, "gradient": slope.gradient, **state}
    number = rounded(2.0 ** -PRECISION[problem.dtype])
    objects = {name: array.astype(object) for name, array in arrays.items()}
    new = apply(problem, update, number, objects, slope.error)
    derivatives = partial_derivatives(problem, update, arrays)
    size, names = theta.size, ["theta", *state]
    derivative = np.zeros((len(names) * size,) * 2)
    for i in range(len(names)):
        rows = slice(i * size, (i + 1) * size)
        for j, into in enumerate(names):
            columns = slice(j * size, (j + 1) * size)
            derivative[rows, columns] = np.diag(derivatives[into][i].ravel())
        derivative[rows, :size] += derivatives["gradient"][i].ravel()[:, None] * slope.derivative
    errors = [[each.error for each in array.flat] for array in new]
    values = [np.array([each.value for each in array.flat]).reshape(theta.shape) for array in new]
    return Step(derivative, np.concatenate(errors), dict(zip(state, values[1:], strict=True)))


def gradient_error(problem: Problem, window: Window, theta: Array) -> Array:
    """How far rounding can take a window's gradient at theta.

    A term goes through at most:
    - prediction: parameter and feature made low precision, a product, and an addition for each
      other feature and the bias; the error's subtraction: 3 more than features and bias;
    - the gradient's terms: the share (its sum, a division), multiplied in, the loss's scale and
      square once each (5), made low precision (1), times x, itself made so (2); the additions
      within the micro-batch and over the micro-batches, the first one to an accumulator of zeros.
    """
    unit = 2.0 ** -PRECISION[problem.compute_dtype or problem.dtype]

    def gamma(operations: int) -> float:
        return operations * unit / (1 - operations * unit)

    low = 1 if problem.compute_dtype else 0
    weighing = 1 if problem.example_weights is None else 1 + window.additions
    x, y = abs(window.x), abs(window.y)
    magnitude = x @ abs(theta) + y
    prediction_error = gamma(len(theta) + 1 + 2 * low) * magnitude
    terms = 2 * window.shares * (magnitude + prediction_error)
    operations = 4 + weighing + 2 * low + window.additions
    return x.T @ (2 * window.shares * prediction_error + gamma(operations) * terms)


def clipped(problem: Problem, gradient: Array, error: Array, derivative: Array) -> Slope:
    """The gradient after clipping."""
    norm = float(np.linalg.norm(gradient))
    unit = 2.0 ** -PRECISION[problem.dtype]
    if problem.max_norm is None:
        return Slope(gradient, error, derivative)
    if norm <= problem.max_norm:
        # A library may multiply by max_norm * (1 / max_norm) all the same.
        return Slope(gradient, error + 3 * unit * abs(gradient), derivative)
    coefficient, direction = problem.max_norm / norm, gradient.ravel() / norm
    by_gradient = coefficient * (np.eye(gradient.size) - np.outer(direction, direction))
    new = coefficient * gradient
    new_error = (abs(by_gradient) @ error.ravel()).reshape(error.shape)
    # The squares and their sum, a root, a quotient, a product.
    new_error += (gradient.size + 5) * unit * abs(new)
    return Slope(new, new_error, by_gradient @ derivative)


def apply(
    problem: Problem, update: int, number: Any, arrays: dict[str, Array], error: Array | float = 0.0
) -> list[Array]:
    """The new theta and state, from object arrays of plain numbers, as numbers of another type."""
    cast = np.frompyfunc(number, 1, 1)
    values = {name: cast(array) for name, array in arrays.items()}
    if issubclass(number, Rounded):
        values["gradient"] = np.frompyfunc(number, 2, 1)(arrays["gradient"], error)
    theta, gradient = values.pop("theta"), values.pop("gradient")
    numbers = numbers_of(problem, update, number)
    new, state = RULES[problem.optimizer.name](theta, gradient, values, numbers, problem.optimizer)
    return [new, *state.values()]


def numbers_of(problem: Problem, update: int, number: Any) -> Constants:
    """The rule's constants; a scheduled learning rate is off by a few roundings of its peak."""
    with localcontext(prec=DIGITS):
        rate = to_number(Decimal, learning_rate(problem, update))
    if issubclass(number, Rounded):
        error = SCHEDULE_ERROR * problem.optimizer.learning_rate if problem.schedule else 0.0
        rate = number(rate, error)
    decays = [True] * len(problem.W) + [problem.decay_bias]
    return constants(problem.optimizer, rate, update, decays, object)


def partial_derivatives(
    problem: Problem, update: int, arrays: dict[str, Array]
) -> dict[str, list[Array]]:
    """For each array, the derivatives by it of the new theta and state; all go element by element.

    They are difference quotients in decimals: exact to more digits than a float has.
    """
    with localcontext(prec=DIGITS):
        decimals = {n: np.frompyfunc(Decimal, 1, 1)(a.astype(object)) for n, a in arrays.items()}
        start = apply(problem, update, Decimal, decimals)
        return {
            name: [
                ((moved - new) / DIFFERENCE).astype(np.float64)
                for moved, new in zip(
                    apply(problem, update, Decimal, decimals | {name: array + DIFFERENCE}),
                    start,
                    strict=True,
                )
            ]
            for name, array in decimals.items()
        }


def exact_updates(problem: Problem, trajectory: Iterable[Array]) -> int:
    """For how many updates of the exact `trajectory` no operation can round, in any order.

    A sum is exact in any order, with or without fused multiply-add, if its terms are multiples
    of some 2^-q and their absolute values add up to at most 2^(p - q), p being 53 or 24: every
    partial sum is then a multiple of 2^-q that p bits hold. That is asked of every sum of a
    window, with and without the accumulator of the last one, of the terms that go into it, and of
    the constants. Raises NotImplementedError for other rules than SGD's, and for clipping.
    """
    settings = problem.optimizer
    if settings.name != "sgd" or not problem.uses_only(*EXACT_SETTINGS):
        raise NotImplementedError("exactness: SGD without clipping and schedule only")
    count = 0
    theta = exact(np.vstack([problem.W, problem.b]))
    buffer = theta * 0
    decays = np.array([[True]] * len(problem.W) + [[problem.decay_bias]])
    momentum, l2 = Fraction(settings.momentum), Fraction(settings.weight_decay) * decays
    rates = problem.learning_rates or [settings.learning_rate] * problem.updates
    lowest = float(np.finfo(problem.dtype).tiny)
    bits = PRECISION[problem.dtype]
    low_bits = PRECISION[problem.compute_dtype or problem.dtype]
    for update, (window, new_theta) in enumerate(zip(windows(problem), trajectory, strict=False)):
        x, y, shares = exact(window.x), exact(window.y), exact(window.shares)
        rate = Fraction(rates[update])
        gain = 1 - Fraction(settings.dampening) if update else Fraction(1)
        products = x[:, :, None] * theta[None]
        scaled = (products.sum(axis=1) - y) * 2 * shares
        terms = x[:, :, None] * scaled[:, None, :]
        gradient, decay, kept = terms.sum(axis=0), l2 * theta, momentum * buffer
        new_buffer = kept + gain * (gradient + decay)
        parts = [kept, gain * gradient, gain * decay]
        if settings.nesterov:
            parts = [gradient, decay, *(momentum * part for part in parts)]
        low_sums = [
            np.moveaxis(np.concatenate([products, -y[:, None, :]], axis=1), 1, 0),
            scaled[None],
            np.concatenate([terms, kept[None]]),
        ]
        sums = [
            shares[None],
            np.array([[rate, momentum, gain, *l2.flat]]),
            np.array([gradient, decay]),
            np.array([kept, gain * gradient, gain * decay]),
            np.array(parts),
            np.array([theta, *(rate * part for part in parts)]),
        ]
        if not all(sums_are_exact(terms, low_bits, lowest) for terms in low_sums):
            break
        if not all(sums_are_exact(terms, bits, lowest) for terms in sums):
            break
        theta, buffer, count = new_theta, new_buffer, count + 1
    return count


# What is exact where its numbers are; a schedule and clipping divide.
EXACT_SETTINGS = (
    *("learning_rates", "decay_bias", "example_weights", "partial_windows"),
    *("non_finite", "compute_dtype", "loss_scale"),
)


def sums_are_exact(terms: Array, p: int, lowest: float = 0) -> bool:
    """Whether all sums over the first axis are exact in p bits, in any order.

    `lowest` is the dtype's smallest normal number, below which it holds fewer bits.
    """
    denominators = {term.denominator for term in terms.flat}
    if any(denominator & (denominator - 1) for denominator in denominators):
        return False
    grid = Fraction(1, max(denominators))
    return bool(np.max(abs(terms).sum(axis=0)) <= 2**p * grid and grid >= lowest)
