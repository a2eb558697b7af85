"""The oracle: one accumulation loop made of named stages, in NumPy, at any precision.

It shares no code with the implementation folders and uses no automatic differentiation: the
gradient of a linear model is one line. On float64 and float32 it performs, one elementary
operation at a time, the operations that every `bitwise.py` performs, and so holds their bits. On
`Fraction` it is exact; on `Decimal`, at 60 digits, rounding does not matter, and a square root is
to be had. Every other run is measured against these.

A mistake is this loop with one or two stages replaced: `dataclasses.replace(STAGES, reset=keep)`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal, localcontext
from fractions import Fraction
from functools import partial
from itertools import islice, pairwise
from typing import Any, Literal, NamedTuple

import ml_dtypes  # noqa: F401 - NumPy knows "bfloat16" from then on
import numpy as np

from lockstep.problem import Array, Problem
from lockstep.rules import State, apply_rule, initial_state, uses_square_root
from lockstep.settings import LossScale

# W above b, as one array (features + 1, outputs): a bias is the weight of a feature that is 1.
Theta = Array
Number = Any  # float, Fraction or Decimal: what the settings are turned into
Precision = Literal["float64", "float32", "fraction", "decimal"]
DIGITS = 60


def weigh(examples: int, window_examples: int, one: Number) -> Number:
    """What a micro-batch's summed loss is multiplied by: all examples of a window count alike."""
    return one / window_examples


def accumulate(accumulator: Theta, gradient: Theta) -> Theta:
    """Add a micro-batch's share to the accumulator."""
    return accumulator + gradient


def boundary(micro_step: int, micro_steps: int, accumulation_steps: int) -> bool:
    """Whether this micro-step, of an epoch's 0 to micro_steps - 1, is the last of its window."""
    return (micro_step + 1) % accumulation_steps == 0 or micro_step + 1 == micro_steps


def normalise(accumulator: Theta, accumulation_steps: int) -> Theta:
    """The gradient that a window's accumulator stands for: itself, since its terms were weighed."""
    return accumulator


def clip(gradient: Theta, max_norm: Number | None) -> Theta:
    """Scale to the global norm `max_norm` where it is exceeded; the sum of squares in order."""
    if max_norm is None:
        return gradient
    square = sum((gradient * gradient).flat)
    if not square:
        return gradient
    coefficient = max_norm * (1 / np.sqrt(square))
    return gradient * coefficient if coefficient < 1 else gradient


def learning_rate(problem: Problem, update: int) -> Number:
    """The learning rate of an update, counted from 0 in updates, never in micro-steps.

    A float where it is given; a schedule's is exact, a fraction, or a decimal for a cosine.
    """
    if problem.learning_rates is not None:
        return problem.learning_rates[update]
    peak, schedule = Fraction(problem.optimizer.learning_rate), problem.schedule
    if schedule is None:
        return problem.optimizer.learning_rate
    if update < schedule.warmup:
        return peak * update / schedule.warmup
    if schedule.decay == "constant":
        return peak
    progress = Fraction(update - schedule.warmup, schedule.updates - schedule.warmup)
    if schedule.decay == "linear":
        return peak * (1 - progress)
    return decimal(peak) * (1 + cosine(progress)) / 2


def decimal(fraction: Fraction) -> Decimal:
    """A fraction to the digits of the context."""
    return Decimal(fraction.numerator) / Decimal(fraction.denominator)


def cosine(half_turns: Fraction) -> Decimal:
    """cos(pi * half_turns) to DIGITS digits."""
    from mpmath import mp

    with mp.workdps(DIGITS):
        return Decimal(str(mp.cospi(mp.mpf(half_turns.numerator) / half_turns.denominator)))


def finite(gradient: Theta) -> bool:
    """Whether the norm of an accumulated gradient is; fractions and decimals always are."""
    return gradient.dtype == object or bool(np.isfinite((gradient * gradient).sum()))


def reset(accumulator: Theta) -> Theta:
    """An empty accumulator; to multiply by zero would keep a NaN, and the sign of a zero."""
    return np.zeros_like(accumulator)


@dataclass(frozen=True)
class Stages:
    """The stages of one window, in the order in which they run."""

    weigh: Callable[[Number, Number, Number], Number] = weigh
    accumulate: Callable[[Theta, Theta], Theta] = accumulate
    boundary: Callable[[int, int, int], bool] = boundary
    normalise: Callable[[Theta, int], Theta] = normalise
    finite: Callable[[Theta], bool] = finite
    clip: Callable[[Theta, Number | None], Theta] = clip
    learning_rate: Callable[[Problem, int], Number] = learning_rate
    apply_rule: Callable[..., tuple[Theta, State]] = apply_rule
    reset: Callable[[Theta], Theta] = reset


STAGES = Stages()


def predict(theta: Theta, x: Array) -> Array:
    """x W + b, summed from b over the features in order; (examples, outputs)."""
    *W, b = theta
    return sum((x[:, [feature]] * row for feature, row in enumerate(W)), b)


def gradient(theta: Theta, x: Array, y: Array, weight: Number) -> Theta:
    """The gradient of weight * squared error, summed over the micro-batch's examples.

    `weight` is a number, or one for each example, (examples, 1).
    """
    error = predict(theta, x) - y
    x = np.hstack([x, np.ones_like(x[:, :1])])
    return (x[:, :, None] * ((error + error) * weight)[:, None, :]).sum(axis=0)


def low_precision_gradient(
    theta: Theta, x: Array, y: Array, weight: Number, compute_dtype: str
) -> Theta:
    """The same with predictions, and what the backward pass makes of their errors, in less.

    The loss is taken in the parameters' own dtype, in which the gradient comes back.
    """
    low, low_x = theta.astype(compute_dtype), x.astype(compute_dtype)
    error = predict(low, low_x).astype(theta.dtype) - y
    low_error = ((error + error) * weight).astype(compute_dtype)
    low_x = np.hstack([low_x, np.ones_like(low_x[:, :1])])
    return (low_x[:, :, None] * low_error[:, None, :]).sum(axis=0).astype(theta.dtype)


class Snapshot(NamedTuple):
    """What a run holds after a window.

    theta: W above b; state: the optimizer's, under torch.optim's names, arrays of theta's shape;
    updates: how many there were; loss_scale: of the next window, 1 where there is none.
    """

    theta: Theta
    state: State
    updates: int
    loss_scale: float


def epochs(problem: Problem, micro_batches: Sequence[Any]) -> list[Sequence[Any]]:
    """The micro-batches of each epoch that go into a window.

    Policies are cuts: a dropped partial window is not there, and to carry it is one long epoch.
    """
    whole = problem.accumulation_steps * len(problem.windows)
    if problem.partial_windows == "carry":
        return [(list(micro_batches) * problem.epochs)[:whole]]
    return [micro_batches[: whole // problem.epochs]] * problem.epochs


def run(
    problem: Problem, precision: Precision | None = None, stages: Stages = STAGES
) -> Iterator[Snapshot]:
    """Yield what the run holds after every window.

    `precision` is the problem's own dtype unless given. Raises NotImplementedError for what a
    fraction cannot hold, a square root in the rule or in clipping, and FloatingPointError for
    a window whose gradient is not finite unless it is to be skipped.
    """
    precision = precision or problem.dtype  # type: ignore[assignment]
    number = {"fraction": Fraction, "decimal": Decimal}.get(precision, float)  # type: ignore
    if number is Fraction and (uses_square_root(problem.optimizer) or problem.max_norm is not None):
        raise NotImplementedError("fractions have no square root: no such rule, no clipping")

    def cast(array: Array) -> Array:
        if number is float:
            return array.astype(precision)
        return np.frompyfunc(number, 1, 1)(array.astype("float64").astype(object))

    theta = cast(np.vstack([problem.W, problem.b]))
    weights = problem.example_weights or [np.ones(len(x)) for x, _ in problem.micro_batches]
    micro_batches = [
        (cast(x), cast(y), cast(w)[:, None], sum(map(number, w.tolist())))
        for (x, y), w in zip(problem.micro_batches, weights, strict=True)
    ]
    slope = gradient
    if number is float and problem.compute_dtype:
        slope = partial(low_precision_gradient, compute_dtype=problem.compute_dtype)
    decays = [True] * len(problem.W) + [problem.decay_bias]
    max_norm = None if problem.max_norm is None else number(problem.max_norm)
    accumulator, state = np.zeros_like(theta), initial_state(problem.optimizer, theta - theta)
    scale, update, k = Scale(problem.loss_scale), 0, problem.accumulation_steps
    for epoch in epochs(problem, micro_batches):
        for micro_step, (x, y, w, examples) in enumerate(epoch):
            start = micro_step // k * k
            window_examples = sum(each[-1] for each in epoch[start : start + k])
            weight = stages.weigh(examples, window_examples, number(1)) * number(scale.value)
            accumulator = stages.accumulate(accumulator, slope(theta, x, y, w * weight))
            if not stages.boundary(micro_step, len(epoch), k):
                continue
            mean = stages.normalise(accumulator, k) * number(1 / scale.value)
            if problem.non_finite == "apply" or stages.finite(mean):
                rate = to_number(number, stages.learning_rate(problem, update))
                mean = stages.clip(mean, max_norm)
                theta, state = stages.apply_rule(
                    theta, mean, state, rate, problem.optimizer, update, decays
                )
                update += 1
                scale.grow()
            elif problem.non_finite == "skip":
                scale.back_off()
            else:
                raise FloatingPointError(f"update {update + 1}: the gradient is not finite")
            accumulator = stages.reset(accumulator)
            yield Snapshot(theta, state, update, scale.value)


def to_number(number: type, rate: Any) -> Number:
    """A learning rate as a number of the run."""
    if number is Decimal and isinstance(rate, Fraction):
        return decimal(rate)
    return number(rate)


class Scale:
    """The dynamic loss scale of a run; 1 without one."""

    def __init__(self, settings: LossScale | None) -> None:
        """Start at the initial scale."""
        self.settings = settings
        self.value = settings.initial if settings else 1.0
        self.streak = 0

    def grow(self) -> None:
        """After an update: double the scale at the end of an interval of them."""
        self.streak += 1
        if self.settings and self.streak == self.settings.growth_interval:
            # float32 holds no larger power of two, and GradScaler stops there.
            self.value, self.streak = min(2 * self.value, 2.0**127), 0

    def back_off(self) -> None:
        """After a window that was not finite: halve the scale."""
        if self.settings:
            self.value, self.streak = self.value / 2, 0


def snapshots(
    problem: Problem,
    precision: Precision | None = None,
    stages: Stages = STAGES,
    updates: int | None = None,
) -> list[Snapshot]:
    """The first `updates` of `run`, or all of them, with decimals of 60 digits.

    Fractions and decimals do not overflow: they skip the windows that the problem's dtype skips.
    """
    if precision in ("fraction", "decimal") and problem.non_finite == "skip":
        taken = iter(updated(problem, updates))
        stages = replace(stages, finite=lambda gradient: next(taken))
    with localcontext(prec=DIGITS), np.errstate(over="ignore", invalid="ignore"):
        return list(islice(run(problem, precision, stages), updates))


def updated(problem: Problem, windows: int | None = None) -> list[bool]:
    """Whether each window, in the problem's own dtype, is an update or is skipped."""
    if problem.non_finite != "skip":
        return [True] * problem.updates
    counts = [0, *(each.updates for each in snapshots(problem, updates=windows))]
    return [after > before for before, after in pairwise(counts)]


def trajectory(
    problem: Problem,
    precision: Precision | None = None,
    stages: Stages = STAGES,
    updates: int | None = None,
) -> list[Theta]:
    """W above b, (features + 1, outputs), after each of the first `updates`, or all of them."""
    return [each.theta for each in snapshots(problem, precision, stages, updates)]


def loss(theta: Theta, problem: Problem) -> float:
    """The objective over one epoch: the weighted mean over examples of the summed squared error."""
    x, y = problem.examples
    error = predict(theta.astype(np.float64), x.astype(np.float64)) - y
    weights = problem.example_weights
    return float(
        np.average((error * error).sum(axis=1), weights=weights and np.concatenate(weights))
    )
