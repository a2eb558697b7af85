"""What rounding can do to an SGD run: nothing on an exact problem, at most a bound on any other.

Notation: u is the unit roundoff, 2^-53 or 2^-24; gamma(k) = k u / (1 - k u) bounds the relative
error of a product of k factors 1 + d, |d| <= u (Higham, Accuracy and Stability of Numerical
Algorithms, 2nd ed., lemma 3.1), and so that of every term of a sum that goes through k
operations, in whatever order they are summed, with or without fused multiply-add.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from typing import NamedTuple

import numpy as np

from lockstep.compare import exact
from lockstep.problem import Array, MicroBatch, Problem, require

PRECISION = {"float64": 53, "float32": 24}
# The bounds are evaluated in float64 themselves; this covers it, thousandfold.
SLACK = 1 + 2.0**-30


class Window(NamedTuple):
    """A window's examples, with the bias as the weight of a feature that is 1.

    x: (n, features + 1); y: (n, outputs); additions: at most so many go into one sum over the
    window, within its largest micro-batch and over its micro-batches.
    """

    x: Array
    y: Array
    additions: int


def windows(problem: Problem) -> list[Window]:
    """The windows of one epoch; the last may be partial."""
    k, pairs = problem.accumulation_steps, problem.micro_batches
    return [stacked(pairs[start : start + k]) for start in range(0, len(pairs), k)]


def stacked(micro_batches: Sequence[MicroBatch]) -> Window:
    """The micro-batches of a window, one above the other."""
    xs, ys = zip(*micro_batches, strict=True)
    x = np.concatenate(xs).astype(np.float64)
    return Window(
        np.hstack([x, np.ones((len(x), 1))]),
        np.concatenate(ys).astype(np.float64),
        max(map(len, xs)) + len(xs),
    )


def rounding_bounds(problem: Problem, trajectory: Sequence[Array]) -> Iterator[Array]:
    """Yield, for every update, the largest error that rounding can cause, number by number.

    `trajectory` is the exact one. With theta = W above b and v its momentum buffer, one window
    maps (theta, v) to an affine function of (theta, v), with matrix A. If every update k adds a
    rounding error of at most d_k, the error after update t is at most

        sum over k <= t of |A_t A_(t-1) ... A_(k+1)| d_k,

    because errors travel through the exact map, contracting where it contracts. d_k bounds the
    roundings of one window at the parameters that the run holds, at most the exact ones plus
    their error. Valid barring underflow. Raises NotImplementedError for what is not affine, and
    ProblemError where the run leaves the range of its dtype.
    """
    settings = problem.optimizer
    if settings.name != "sgd" or settings.weight_decay or problem.max_norm is not None:
        raise NotImplementedError("rounding bounds: SGD without decay and clipping only")
    size = len(problem.W) + 1
    theta = np.vstack([problem.W, problem.b]).astype(np.float64)
    buffer = np.zeros_like(theta)
    error = np.zeros((2 * size, theta.shape[1]))
    # The map of all updates since, for each past update, and what it carries: the local errors.
    carried = np.zeros((0, 2 * size, 2 * size))
    local: list[Array] = []
    epoch = windows(problem)
    rates = problem.learning_rates or [settings.learning_rate] * problem.updates
    momentum = settings.momentum * np.eye(size)
    for update, exact_theta in enumerate(trajectory):
        window, rate = epoch[update % len(epoch)], rates[update]
        held = np.vstack([abs(theta), abs(buffer)]) + error
        unit = 2.0 ** -PRECISION[problem.dtype]
        local.append(local_error(window, held, rate, settings.momentum, unit))
        x, y, _ = window
        hessian = 2 / len(x) * x.T @ x
        step = np.block([[np.eye(size) - rate * hessian, -rate * momentum], [hessian, momentum]])
        carried = np.concatenate([step @ carried, np.eye(2 * size)[None]])
        error = (abs(carried) @ np.array(local)).sum(axis=0) * SLACK
        buffer = momentum @ buffer + 2 / len(x) * x.T @ (x @ theta - y)
        theta = exact_theta.astype(np.float64)
        largest = float(np.finfo(problem.dtype).max)
        require(
            bool((abs(theta) + error[:size] < largest).all() and np.isfinite(error).all()),
            f"the run diverges: update {update + 1} is out of {problem.dtype}'s range,"
            " choose a smaller learning rate",
        )
        yield error[:size]


def local_error(window: Window, held: Array, rate: float, momentum: float, unit: float) -> Array:
    """The roundings of one window: bounds for theta above bounds for the momentum buffer.

    `held` bounds the absolute values of both at its start. Operations a term goes through, at most:
    - prediction: a product, and an addition for each other feature and the bias; the error's
      subtraction: one more than there are features and bias;
    - the gradient's terms: the factor 1 / n or 2 / n rounded, multiplied in, the loss's scale
      and square once each (4), times x (1); then the additions within the micro-batch and over
      the micro-batches of the window, the first one to an accumulator of zeros;
    - the buffer: the momentum rounded to the dtype, its product, the addition (3);
    - theta: the rate rounded to the dtype, its product, the addition (3). Keras folds the rate
      into the buffer, which puts two of these before the buffer's.
    """

    def gamma(operations: int) -> float:
        return operations * unit / (1 - operations * unit)

    x, y = abs(window.x), abs(window.y)
    theta, buffer = np.split(held, 2)
    magnitude = x @ theta + y
    prediction_error = gamma(len(theta) + 1) * magnitude
    terms = 2 / len(x) * (magnitude + prediction_error)
    gradient_error = x.T @ (2 / len(x) * prediction_error + gamma(5 + window.additions) * terms)
    new_buffer = momentum * buffer + x.T @ terms
    buffer_error = gradient_error + gamma(5) * new_buffer
    theta_error = rate * buffer_error + gamma(5) * (theta + rate * new_buffer)
    return np.vstack([theta_error, buffer_error])


def exact_updates(problem: Problem, trajectory: Iterable[Array]) -> int:
    """For how many updates of the exact `trajectory` no operation can round, in any order.

    A sum is exact in any order, with or without fused multiply-add, if its terms are multiples
    of some 2^-q and their absolute values add up to at most 2^(p - q), p being 53 or 24: every
    partial sum is then a multiple of 2^-q that p bits hold. That is asked of every sum of a
    window, with and without the accumulator of the last one, of the terms that go into it, and of
    the constants. Raises NotImplementedError for other rules than SGD's without decay.
    """
    settings = problem.optimizer
    if settings.name != "sgd" or settings.weight_decay or problem.max_norm is not None:
        raise NotImplementedError("exactness: SGD without decay and clipping only")
    count = 0
    theta = exact(np.vstack([problem.W, problem.b]))
    buffer = theta * 0
    epoch = [(exact(window.x), exact(window.y)) for window in windows(problem)]
    momentum = Fraction(settings.momentum)
    rates = problem.learning_rates or [settings.learning_rate] * problem.updates
    lowest = float(np.finfo(problem.dtype).tiny)
    for update, new_theta in enumerate(trajectory):
        x, y = epoch[update % len(epoch)]
        rate = Fraction(rates[update])
        products = x[:, :, None] * theta[None]
        error = products.sum(axis=1) - y
        scaled = error * Fraction(2, len(x))
        terms = x[:, :, None] * scaled[:, None, :]
        gradient = terms.sum(axis=0)
        new_buffer = momentum * buffer + gradient
        sums = [
            np.array([[Fraction(1, len(x)), rate, momentum]]).T,
            np.moveaxis(np.concatenate([products, -y[:, None, :]], axis=1), 1, 0),
            scaled[None],
            np.concatenate([terms, (momentum * buffer)[None]]),
            np.array([momentum * buffer, gradient]),
            np.array([momentum * rate * buffer, rate * gradient]),
            np.array([theta, -rate * new_buffer]),
        ]
        if not all(sums_are_exact(terms, PRECISION[problem.dtype], lowest) for terms in sums):
            break
        theta, buffer, count = new_theta, new_buffer, count + 1
    return count


def sums_are_exact(terms: Array, p: int, lowest: float = 0) -> bool:
    """Whether all sums over the first axis are exact in p bits, in any order.

    `lowest` is the dtype's smallest normal number, below which it holds fewer bits.
    """
    denominators = {term.denominator for term in terms.flat}
    if any(denominator & (denominator - 1) for denominator in denominators):
        return False
    grid = Fraction(1, max(denominators))
    return bool(np.max(abs(terms).sum(axis=0)) <= 2**p * grid and grid >= lowest)
