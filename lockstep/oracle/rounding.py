"""What rounding can do to a run: nothing on an exact problem, at most a bound on any other.

Notation: u is the unit roundoff, 2^-53 or 2^-24; gamma(k) = k u / (1 - k u) bounds the relative
error of a product of k factors 1 + d, |d| <= u (Higham, Accuracy and Stability of Numerical
Algorithms, 2nd ed., lemma 3.1), and so that of every term of a sum that goes through k
operations, in whatever order they are summed, with or without fused multiply-add.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from decimal import Context, Decimal, localcontext
from fractions import Fraction
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from lockstep.oracle.compare import exact
from lockstep.oracle.loop import DIGITS, rate_of, to_number, updated
from lockstep.oracle.rules import (
    RULES,
    Constants,
    State,
    constants,
    initial_state,
    uses_square_root,
)
from lockstep.oracle.tracked import Rounded, rounded
from lockstep.problem import Array, Problem
from lockstep.problem.settings import ProblemError, require

PRECISION = {"float64": 53, "float32": 24, "float16": 11, "bfloat16": 8}
# Of errors that meet in one update, only the sum of what each does alone is taken; twice that
# covers what they do together, and that the bounds are evaluated in float64 themselves.
SLACK = 2.0
# Of a number without an error, a derivative is a difference quotient over so much of it.
DIFFERENCE = Decimal("1e-30")
# A bound of more of the largest parameter says nothing.
LARGEST_BOUND = 0.5
# The maps of all updates are kept and multiplied, which is for small models.
LARGEST_SIZE = 500


class Window(NamedTuple):
    """A window's examples, with the bias as the weight of a feature that is 1.

    x: (n, features + 1); y: (n, outputs); weights: (n,); shares: (n, 1), by which each example's
    squared error is multiplied; additions: at most so many go into one sum over the window, within
    its largest micro-batch and over its micro-batches.
    """

    x: Array
    y: Array
    weights: Array
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
        weights,
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
    to another z; A is the derivative of that map. If every update k adds an error of at most d_k,
    the error after update t is at most

        sum over k <= t of |A_t A_(t-1) ... A_(k+1)| d_k,

    because errors travel through the exact map, contracting where it contracts. d_k is what
    rounding adds in one window: to its gradient, by counting operations, and in the optimizer's
    rule, by running the oracle's rule on numbers that carry their error (`Rounded`). Where the
    rule bends within the error of what goes into it, as a sign does at 0, A is the slope across
    that error, and d_k has the rest of the bend. In open loop, the optimizer takes recorded
    `gradients`, which have no error. Valid barring underflow, and where rounding does not decide
    whether to clip.

    Raises ProblemError where the run leaves the range of its dtype, where the bound would say
    nothing, and for a model too large.
    """
    theta = np.vstack([problem.W, problem.b]).astype(np.float64)
    state = initial_state(problem.optimizer, np.zeros_like(theta))
    size, names = theta.size * (1 + len(state)), ["theta", *state]
    require(size <= LARGEST_SIZE, f"rounding bounds: {size} numbers, at most {LARGEST_SIZE}")
    # Side by side, for each past update, the map of all since; and what they carry, local errors.
    carried, local = np.zeros((size, 0)), np.zeros(0)
    error = np.zeros((len(names), *theta.shape))
    scale = largest_parameter(problem, trajectory)
    taken, update = updated(problem, len(trajectory)), 0
    for number, (window, exact_theta) in enumerate(zip(windows(problem), trajectory, strict=False)):
        if taken[number]:
            recorded = None if gradients is None else gradients[update]
            slope = slope_of(problem, window, theta, update, recorded)
            require_finite(problem, update, slope)
            if problem.compute_dtype and recorded is None:
                check_low_precision(problem, window, theta, update)
            errors = dict(zip(names, error, strict=True))
            try:
                step = analyse(problem, slope, {"theta": theta, **state}, errors, update)
            except ArithmeticError:
                raise ProblemError(
                    f"update {update + 1} has no bound: {problem.optimizer.name} is not defined"
                    " within the error of what it works on"
                ) from None
            carried = np.hstack([step.derivative @ carried, np.eye(size)])
            local = np.concatenate([local, step.error])
            error = SLACK * (abs(carried) @ local).reshape(len(names), *theta.shape)
            theta, state, update = exact_theta.astype(np.float64), step.state, update + 1
            require(
                bool(np.isfinite(error).all() and (error[0] <= LARGEST_BOUND * scale).all()),
                f"update {update} has no bound: rounding to"
                f" {problem.compute_dtype or problem.dtype} can change its parameters by more than"
                f" {LARGEST_BOUND:g} of the largest",
            )
        yield Bounds(error[0], dict(zip(state, error[1:], strict=True)))


def largest_parameter(problem: Problem, trajectory: Sequence[Array]) -> float:
    """The largest of a run; all must be in the range of its dtype."""
    sizes = [float(abs(theta.astype(np.float64)).max()) for theta in trajectory]
    for update, size in enumerate(sizes, 1):
        require_range(problem, update, size)
    return max(sizes, default=0.0)


def check_squares(problem: Problem, update: int, gradient: Array) -> None:
    """Require the squares of a gradient, where they are taken, to be in the range of the dtype."""
    if problem.max_norm is not None or uses_square_root(problem.optimizer):
        with np.errstate(over="ignore"):
            require_range(problem, update + 1, float((gradient * gradient).sum()))


def check_low_precision(problem: Problem, window: Window, theta: Array, update: int) -> None:
    """Require a window's forward and backward pass to be in the range of the compute dtype.

    Where what is not finite is skipped, such a window is no update.
    """
    if problem.non_finite == "skip":
        return
    scale, settings = 1.0, problem.loss_scale
    if settings:
        scale = settings.initial * 2.0 ** (update // settings.growth_interval)
    x = abs(window.x)
    prediction = x @ abs(theta)
    error = 2 * window.shares * (prediction + abs(window.y)) * scale
    size = max(float(each.max()) for each in (x, abs(theta), prediction, error, x.T @ error))
    require_range(problem, update + 1, size, problem.compute_dtype)


def require_finite(problem: Problem, update: int, slope: Slope) -> None:
    """Raise ProblemError where the derivative, of the squares of the data, overflows."""
    size = sum(float(abs(each).max()) for each in slope)
    require_range(problem, update + 1, size, "float64")


def require_range(problem: Problem, update: int, size: float, dtype: str | None = None) -> None:
    """Raise ProblemError for a number that a dtype, the problem's unless given, cannot hold."""
    dtype = dtype or problem.dtype
    require(
        size < float(ml_dtypes.finfo(dtype).max),
        f"the run diverges: update {update} is out of {dtype}'s range,"
        " choose a smaller learning rate, or scale the data",
    )


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


def slope_of(
    problem: Problem, window: Window, theta: Array, update: int, recorded: Array | None = None
) -> Slope:
    """The gradient that the rule gets: of a window at theta and clipped, or a recorded one."""
    if recorded is not None:
        check_squares(problem, update, recorded)
        return Slope(recorded, np.zeros_like(theta), np.zeros((theta.size,) * 2))
    x, y, _, shares, _ = window
    # W above b is flat by rows, and each output has the same second derivative.
    derivative = np.kron(2 * x.T @ (shares * x), np.eye(theta.shape[1]))
    gradient = 2 * x.T @ (shares * (x @ theta - y))
    check_squares(problem, update, gradient)
    return clipped(problem, gradient, gradient_error(problem, window, theta), derivative)


def analyse(
    problem: Problem,
    slope: Slope,
    held: dict[str, Array],
    errors: dict[str, Array],
    update: int,
) -> Step:
    """The derivative of an update at what the run holds, and the error that it adds.

    held, errors: theta and each array of the state, and how far off they may be.
    """
    shape, size = slope.gradient.shape, slope.gradient.size
    arrays = {**held, "gradient": slope.gradient}
    arrived = abs(slope.derivative) @ errors["theta"].ravel()
    spread = {**errors, "gradient": slope.error + arrived.reshape(shape)}
    objects = {name: array.astype(object) for name, array in arrays.items()}
    number = rounded(2.0 ** -PRECISION[problem.dtype], problem.dtype)
    new = apply(problem, numbers_of(problem, update, number), objects)
    slopes, rest = difference_quotients(problem, update, arrays, spread)
    derivative = np.block([[np.diag(each.ravel()) for each in slopes[name]] for name in held]).T
    by_gradient = np.array(slopes["gradient"])
    derivative[:, :size] += by_gradient.reshape(-1, 1) * np.tile(
        slope.derivative, (len(by_gradient), 1)
    )
    rounding = np.array([[[each.error for each in row] for row in array] for array in new])
    added = rounding + abs(by_gradient) * slope.error + rest
    values = [np.array([[each.value for each in row] for row in array]) for array in new[1:]]
    names = [name for name in held if name != "theta"]
    return Step(derivative, added.ravel(), dict(zip(names, values, strict=True)))


def gradient_error(problem: Problem, window: Window, theta: Array) -> Array:
    """How far rounding can take a window's gradient at theta.

    Low precision rounds what goes into a matrix product, and what comes out; in between, its
    sums are float32. A term goes through at most:
    - prediction: feature and parameter made low, the product and the sum with the bias (4 low);
      a product, an addition for each other feature and the bias, the error's subtraction;
    - the gradient's terms: the error and the feature made low, the sum (3 low); the share (a
      division, and the weights' sum), multiplied in, the loss's scale and square once each (5);
      times the feature; the additions within the micro-batch and over the micro-batches, the
      first one to an accumulator of zeros.
    """
    unit = 2.0 ** -PRECISION[problem.dtype]
    low = 2.0 ** -PRECISION[problem.compute_dtype] if problem.compute_dtype else 0.0
    kernel = 2.0 ** -PRECISION["float32"] if problem.compute_dtype else unit

    def gamma(operations: int, unit: float) -> float:
        require(
            operations * unit < 0.1,
            f"rounding bounds: {operations} additions in one sum are too many to be bounded",
        )
        return operations * unit / (1 - operations * unit)

    weighing = 1 if problem.example_weights is None else 1 + window.additions
    x, y = abs(window.x), abs(window.y)
    magnitude = x @ abs(theta) + y
    prediction_error = (gamma(4, low) + gamma(len(theta) + 1, kernel)) * magnitude
    terms = 2 * window.shares * (magnitude + prediction_error)
    relative = gamma(3, low) + gamma(4 + weighing, unit) + gamma(window.additions, kernel)
    return x.T @ (2 * window.shares * prediction_error + relative * terms)


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


def apply(problem: Problem, numbers: Constants, arrays: dict[str, Array]) -> list[Array]:
    """The new theta and state, from object arrays, in the numbers that the constants are."""
    cast = np.frompyfunc(type(numbers["rate"]), 1, 1)
    values = {name: cast(array) for name, array in arrays.items()}
    theta, gradient = values.pop("theta"), values.pop("gradient")
    new, state = RULES[problem.optimizer.name](theta, gradient, values, numbers, problem.optimizer)
    return [new, *state.values()]


def numbers_of(problem: Problem, update: int, number: Any) -> Constants:
    """The rule's constants; a scheduled learning rate is off by a few roundings of its peak."""
    with localcontext(Context(prec=DIGITS)):
        rate = to_number(Decimal, rate_of(problem, update), problem)
    if issubclass(number, Rounded):
        rate = to_number(number, rate, problem)
    decays = [True] * len(problem.W) + [problem.decay_bias]
    return constants(problem.optimizer, rate, update, decays, object)


def difference_quotients(
    problem: Problem, update: int, arrays: dict[str, Array], spread: dict[str, Array]
) -> tuple[dict[str, list[Array]], Array]:
    """How the new theta and state depend on each array, over its error, all element by element.

    Returns the slopes of the new arrays across the error, and how far, summed over what goes in,
    they bend away from these slopes within it. In decimals: a quotient over next to nothing is a
    derivative, exact to more digits than a float has.
    """
    to_decimal = np.frompyfunc(Decimal, 1, 1)
    with localcontext(Context(prec=DIGITS)):
        decimals = {name: to_decimal(array.astype(object)) for name, array in arrays.items()}
        numbers = numbers_of(problem, update, Decimal)
        start = apply(problem, numbers, decimals)
        slopes, rest = {}, np.zeros((len(start), *start[0].shape))
        for name, array in decimals.items():
            step = to_decimal(spread[name].astype(object))
            step = np.where(step > 0, step, (abs(array) + 1) * DIFFERENCE)
            up = apply(problem, numbers, decimals | {name: array + step})
            down = apply(problem, numbers, decimals | {name: array - step})
            ends = list(zip(start, up, down, strict=True))
            slopes[name] = [((u - d) / (2 * step)).astype(np.float64) for _, u, d in ends]
            # Up and down are as far from the middle, which is not where the start is.
            rest += np.array([abs((u + d) / 2 - s).astype(np.float64) for s, u, d in ends])
    return slopes, rest


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
    precisions = [problem.dtype, problem.compute_dtype or problem.dtype]
    (bits, lowest), (low_bits, low_lowest) = (
        (PRECISION[name], float(ml_dtypes.finfo(name).tiny)) for name in precisions
    )
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
            exact(window.weights)[:, None],
            shares[None],
            np.array([[rate, momentum, gain, *l2.flat]]),
            np.array([gradient, decay]),
            np.array([kept, gain * gradient, gain * decay]),
            np.array(parts),
            np.array([theta, *(rate * part for part in parts)]),
        ]
        if not all(sums_are_exact(terms, low_bits, low_lowest) for terms in low_sums):
            break
        if not all(sums_are_exact(terms, bits, lowest) for terms in sums):
            break
        theta, buffer, count = new_theta, new_buffer, count + 1
    return count


# What is exact where its numbers are; a schedule and clipping divide, a loss scale overflows.
EXACT_SETTINGS = (
    *("learning_rates", "decay_bias", "example_weights", "partial_windows", "compute_dtype"),
)


def sums_are_exact(terms: Array, bits: int, lowest: float = 0) -> bool:
    """Whether all sums over the first axis are exact in so many bits, in any order.

    `lowest` is the dtype's smallest normal number, below which it holds fewer bits.
    """
    denominators = {term.denominator for term in terms.flat}
    if any(denominator & (denominator - 1) for denominator in denominators):
        return False
    grid = Fraction(1, max(denominators))
    return bool(np.max(abs(terms).sum(axis=0)) <= 2**bits * grid and grid >= lowest)
