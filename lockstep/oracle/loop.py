"""The oracle: one accumulation loop made of named stages, in NumPy, at any precision.

It shares no code with the implementation folders and uses no automatic differentiation: the
gradient of a linear model is one line. On float64 and float32 it performs, one elementary
operation at a time, the operations that every `bitwise.py` performs, and so holds their bits. On
`Fraction` it is exact; on `Decimal`, at 60 digits, rounding does not matter, and a square root is
to be had. Every other run is measured against these.

A mistake is this loop with some stages replaced: `dataclasses.replace(STAGES, reset=keep)`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from decimal import Context, Decimal, localcontext
from fractions import Fraction
from itertools import islice, pairwise
from typing import Any, Literal, NamedTuple

import ml_dtypes  # noqa: F401 - NumPy knows "bfloat16" from then on
import numpy as np

from lockstep.oracle import rules
from lockstep.oracle.rules import RULES, Constants, State, initial_state, uses_square_root
from lockstep.oracle.tracked import Rounded
from lockstep.problem import Array, Problem
from lockstep.problem.settings import LossScale, Schedule

# W above b, as one array (features + 1, outputs): a bias is the weight of a feature that is 1.
Theta = Array
Number = Any  # float, Fraction or Decimal: what the settings are turned into
Precision = Literal["float64", "float32", "fraction", "decimal"]
DIGITS = 60
# A schedule is evaluated on the host, in a few float64 operations of numbers up to its peak.
SCHEDULE_ERROR = 8 * 2.0**-53


@dataclass(slots=True)
class Place:
    """Where the loop stands: what a stage may look at, beside what it works on.

    problem: the settings in use; number: what makes a number of the run of a plain one; dtype: of
    its arrays; max_norm: the problem's, as such a number.
    epoch, micro_step: counted from 0, the micro-step within its epoch, which has `micro_steps`.
    examples, rows: what the micro-batch counts for, and how many it has; window_examples,
    window_rows: its window's. window_length: how many micro-batches its window has, K unless it
    is partial.
    update, window: how many there were before; they differ where a window is skipped.
    taken: whether the last window was an update. rate: the last update's.
    stages: all of the loop's. scale: the loss is multiplied by. gradients: the window's
    micro-batches', weighed and scaled.
    kept: nothing, for a mistake that remembers something.
    """

    problem: Problem
    number: Callable[[Any], Number]
    dtype: Any
    max_norm: Number | None
    stages: Stages
    epoch: int = 0
    micro_step: int = 0
    micro_steps: int = 0
    examples: Number = 0
    rows: int = 0
    window_examples: Number = 0
    window_rows: int = 0
    window_length: int = 0
    update: int = 0
    window: int = 0
    taken: bool = True
    scale: float = 1.0
    rate: Number = 0
    gradients: list[Theta] = field(default_factory=list)
    kept: dict[str, Any] = field(default_factory=dict)

    @property
    def position(self) -> int:
        """The micro-step within its window, from 0."""
        return self.micro_step % self.problem.accumulation_steps

    @property
    def decays(self) -> list[bool]:
        """For each row of W above b, whether weight decay acts on it."""
        return [True] * len(self.problem.W) + [self.problem.decay_bias]


def settings(problem: Problem) -> Problem:
    """The settings that the loop goes by: those that it was given."""
    return problem


def micro_batch(at: Place) -> int:
    """Which of the epoch's micro-batches a micro-step takes."""
    return at.micro_step


def error(theta: Theta, x: Array, y: Array) -> Array:
    """What the predictions are off, (examples, outputs)."""
    return predict(theta, x) - y


def count(total: Number, rows: int, at: Place) -> Number:
    """What a micro-batch of so many rows counts for in a mean: the sum of its weights."""
    return total


def examples(index: int, at: Place) -> Number:
    """What a micro-batch of the epoch counts for, wherever the run stands."""
    rows, weights = len(at.problem.micro_batches[index][0]), at.problem.example_weights
    total = at.number(rows) if weights is None else sum(map(at.number, weights[index].tolist()))
    return at.stages.count(total, rows, at)


def weigh(at: Place) -> Number:
    """What a micro-batch's summed loss is multiplied by: all examples of a window count alike."""
    return at.number(1) / at.window_examples


def accumulate(accumulator: Theta, gradient: Theta, at: Place) -> Theta:
    """Add a micro-batch's share to the accumulator."""
    return accumulator + gradient


def boundary(at: Place) -> bool:
    """Whether this micro-step is the last of its window."""
    last = at.micro_step + 1
    return last % at.problem.accumulation_steps == 0 or last == at.micro_steps


def normalise(accumulator: Theta, at: Place) -> Theta:
    """The gradient that a window's accumulator stands for: itself, since its terms were weighed."""
    return accumulator


def unscale(gradient: Theta, at: Place) -> Theta:
    """Take the loss scale out again, before anything else looks at the gradient."""
    return gradient * at.number(1 / at.scale)


def finite(gradient: Theta, at: Place) -> bool:
    """Whether the norm of an accumulated gradient is; fractions and decimals always are."""
    if gradient.dtype == object:
        values = [getattr(number, "value", 0.0) for number in gradient.flat]
        gradient = np.array(values, at.problem.dtype)
    return bool(np.isfinite((gradient * gradient).sum()))


def clip(gradient: Theta, at: Place) -> Theta:
    """Scale W's and b's gradient together, to the problem's global norm."""
    return clip_to(gradient, at.max_norm)


def clip_to(gradient: Theta, max_norm: Number | None) -> Theta:
    """Scale to the norm `max_norm` where it is exceeded; the sum of squares in order."""
    if max_norm is None:
        return gradient
    square = sum((gradient * gradient).flat)
    if not square:
        return gradient
    coefficient = max_norm * (1 / np.sqrt(square))
    return gradient * coefficient if coefficient < 1 else gradient


def learning_rate(at: Place) -> Number:
    """The learning rate of the next update, counted in updates, never in micro-steps."""
    return rate_of(at.problem, at.update)


def rate_of(problem: Problem, update: int) -> Number:
    """The learning rate of an update, counted from 0.

    A float where it is given; a schedule's is exact, a fraction, or a decimal for a cosine.
    """
    if problem.learning_rates is not None:
        return problem.learning_rates[update]
    peak, schedule = Fraction(problem.optimizer.learning_rate), problem.schedule
    if schedule is None:
        return problem.optimizer.learning_rate
    if update < schedule.warmup:
        return peak * update / schedule.warmup
    if schedule.decay != "constant" and update >= schedule.updates:
        return Fraction(0)
    return decayed(peak, schedule, update)


def decayed(peak: Fraction, schedule: Schedule, update: int) -> Number:
    """What a schedule's formula makes of its peak after the warm-up, and after its end too."""
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


def constants(rate: Number, at: Place) -> Constants:
    """The numbers of an update: learning rate, decay, momentum, bias corrections, and so on."""
    return rules.constants(at.problem.optimizer, rate, at.update, at.decays, at.dtype)


def rule(
    theta: Theta, gradient: Theta, state: State, numbers: Constants, at: Place
) -> tuple[Theta, State]:
    """The optimizer's rule, under `torch.optim`'s definition."""
    return RULES[at.problem.optimizer.name](theta, gradient, state, numbers, at.problem.optimizer)


def take_update(theta: Theta, gradient: Theta, state: State, at: Place) -> tuple[Theta, State]:
    """Take one update, once a window: its rate, its numbers, the rule."""
    at.rate = to_number(at.number, at.stages.learning_rate(at), at.problem)
    return at.stages.rule(theta, gradient, state, at.stages.constants(at.rate, at), at)


def reset(accumulator: Theta, at: Place) -> Theta:
    """An empty accumulator; to multiply by zero would keep a NaN, and the sign of a zero."""
    return np.zeros_like(accumulator)


def report(losses: Sequence[Number], at: Place) -> Number:
    """The window's loss, of its micro-batches' shares."""
    return sum(losses)


def shows(at: Place) -> bool:
    """Whether the parameters are shown after this boundary."""
    return True


@dataclass(frozen=True)
class Stages:
    """The stages of the loop, in the order in which they run."""

    settings: Callable[[Problem], Problem] = settings
    micro_batch: Callable[[Place], int] = micro_batch
    error: Callable[[Theta, Array, Array], Array] = error
    count: Callable[[Number, int, Place], Number] = count
    weigh: Callable[[Place], Number] = weigh
    accumulate: Callable[[Theta, Theta, Place], Theta] = accumulate
    boundary: Callable[[Place], bool] = boundary
    normalise: Callable[[Theta, Place], Theta] = normalise
    unscale: Callable[[Theta, Place], Theta] = unscale
    finite: Callable[[Theta, Place], bool] = finite
    clip: Callable[[Theta, Place], Theta] = clip
    learning_rate: Callable[[Place], Number] = learning_rate
    constants: Callable[[Number, Place], Constants] = constants
    rule: Callable[..., tuple[Theta, State]] = rule
    take_update: Callable[..., tuple[Theta, State]] = take_update
    reset: Callable[[Theta, Place], Theta] = reset
    report: Callable[[Sequence[Number], Place], Number] = report
    shows: Callable[[Place], bool] = shows

    @property
    def replaced(self) -> dict[str, Callable[..., Any]]:
        """The stages that are not the loop's own, by their names."""
        own = vars(STAGES)
        return {name: stage for name, stage in vars(self).items() if stage is not own[name]}


STAGES = Stages()


def predict(theta: Theta, x: Array) -> Array:
    """x W + b, summed from b over the features in order; (examples, outputs)."""
    *W, b = theta
    return sum((x[:, [feature]] * row for feature, row in enumerate(W)), b)


def gradient(off: Array, x: Array, weight: Number) -> Theta:
    """The gradient of weight * squared error, summed over the micro-batch's examples.

    `off` is what its predictions are off; `weight` a number, or one for each, (examples, 1).
    """
    x = np.hstack([x, np.ones_like(x[:, :1])])
    return (x[:, :, None] * ((off + off) * weight)[:, None, :]).sum(axis=0)


def low_precision_gradient(
    theta: Theta, x: Array, y: Array, weight: Number, compute_dtype: str
) -> Theta:
    """The same with predictions, and what the backward pass makes of their errors, in less.

    The loss is taken in the parameters' own dtype, in which the gradient comes back.
    """
    low_x = x.astype(compute_dtype)
    off = predict(theta.astype(compute_dtype), low_x).astype(theta.dtype) - y
    low = ((off + off) * weight).astype(compute_dtype)
    low_x = np.hstack([low_x, np.ones_like(low_x[:, :1])])
    return (low_x[:, :, None] * low[:, None, :]).sum(axis=0).astype(theta.dtype)


class Snapshot(NamedTuple):
    """What a run holds after a window.

    theta: W above b; state: the optimizer's, under torch.optim's names, arrays of theta's shape;
    updates: how many there were; loss_scale: of the next window, 1 where there is none;
    gradient: as the rule got it, like theta; learning_rate: of the last update; loss: the
    window's, before the update, 0 unless it is asked for, and in low precision.
    """

    theta: Theta
    state: State
    updates: int
    loss_scale: float
    gradient: Theta
    learning_rate: Number
    loss: Number


def epochs(problem: Problem, micro_batches: Sequence[Any]) -> list[Sequence[Any]]:
    """The micro-batches of each epoch that go into a window.

    Policies are cuts: a dropped partial window is not there, and to carry it is one long epoch.
    """
    whole = problem.accumulation_steps * len(problem.windows)
    if problem.partial_windows == "carry":
        return [(list(micro_batches) * problem.epochs)[:whole]]
    return [micro_batches[: whole // problem.epochs]] * problem.epochs


def run(
    problem: Problem,
    precision: Precision | type[Rounded] | None = None,
    stages: Stages = STAGES,
    losses: bool = False,
) -> Iterator[Snapshot]:
    """Yield what the run holds after every window.

    `precision` is the problem's own dtype unless given, or numbers that carry their error.
    Raises NotImplementedError for what a fraction cannot hold, a square root in the rule or in
    clipping, and FloatingPointError for a window whose gradient is not finite unless it is to be
    skipped.
    """
    problem = stages.settings(problem)
    number, cast = arithmetic(problem, precision or problem.dtype)  # type: ignore[arg-type]
    theta = cast(np.vstack([problem.W, problem.b]))
    weights = problem.example_weights or [np.ones(len(x)) for x, _ in problem.micro_batches]
    micro_batches = [
        (cast(x), cast(y), cast(w)[:, None], sum(map(number, w.tolist())))
        for (x, y), w in zip(problem.micro_batches, weights, strict=True)
    ]
    accumulator, state = np.zeros_like(theta), initial_state(problem.optimizer, theta - theta)
    scale, shares = Scale(problem.loss_scale), []
    max_norm = None if problem.max_norm is None else number(problem.max_norm)
    at = Place(problem, number, theta.dtype, max_norm, stages)
    for at.epoch, epoch in enumerate(epochs(problem, micro_batches)):
        at.micro_steps = len(epoch)
        for at.micro_step in range(len(epoch)):
            at.scale = scale.value
            share, loss = contribution(theta, enter(epoch, at), at, losses)
            at.gradients.append(share)
            shares.append(loss)
            accumulator = stages.accumulate(accumulator, share, at)
            if not stages.boundary(at):
                continue
            mean = stages.unscale(stages.normalise(accumulator, at), at)
            at.taken = problem.non_finite == "apply" or stages.finite(mean, at)
            if at.taken:
                mean = stages.clip(mean, at)
                theta, state = stages.take_update(theta, mean, state, at)
                at.update += 1
                scale.grow()
            elif problem.non_finite == "skip":
                scale.back_off()
            else:
                raise FloatingPointError(f"update {at.update + 1}: the gradient is not finite")
            accumulator = stages.reset(accumulator, at)
            at.window += 1
            if stages.shows(at):
                loss = stages.report(shares, at)
                yield Snapshot(theta, state, at.update, scale.value, mean, at.rate, loss)
            at.gradients, shares = [], []


def arithmetic(
    problem: Problem, precision: Precision | type[Rounded]
) -> tuple[Any, Callable[[Array], Array]]:
    """The numbers of a run, and what makes an array of them.

    Raises NotImplementedError for what a fraction cannot hold.
    """
    if precision in ("float64", "float32"):
        return float, lambda array: array.astype(precision)
    number = {"fraction": Fraction, "decimal": Decimal}.get(precision, precision)  # type: ignore
    if number is Fraction and (uses_square_root(problem.optimizer) or problem.max_norm is not None):
        raise NotImplementedError("fractions have no square root: no such rule, no clipping")
    each = np.frompyfunc(number, 1, 1)
    return number, lambda array: each(array.astype("float64").astype(object))


def enter(epoch: Sequence[Any], at: Place) -> tuple[Array, Array, Array]:
    """Go to the micro-batch of this place, and see its window; its x, y and weights."""
    x, y, weights, total = epoch[at.stages.micro_batch(at)]
    k = at.problem.accumulation_steps
    start = at.micro_step // k * k
    window = epoch[start : start + k]
    at.rows, at.window_length = len(x), len(window)
    at.window_rows = sum(len(each[0]) for each in window)
    at.examples = at.stages.count(total, at.rows, at)
    at.window_examples = sum(at.stages.count(each[-1], len(each[0]), at) for each in window)
    return x, y, weights


def contribution(
    theta: Theta, micro_batch: tuple[Array, Array, Array], at: Place, losses: bool
) -> tuple[Theta, Number]:
    """What a micro-batch adds to the gradient, and to the loss, which is 0 unless asked for."""
    x, y, weights = micro_batch
    weight = weights * (at.stages.weigh(at) * at.number(at.scale))
    if at.problem.compute_dtype and at.number is float:
        return low_precision_gradient(theta, x, y, weight, at.problem.compute_dtype), 0
    off = at.stages.error(theta, x, y)
    loss = (off * off * weight).sum() * at.number(1 / at.scale) if losses else 0
    return gradient(off, x, weight), loss


def to_number(number: Any, rate: Any, problem: Problem) -> Number:
    """A learning rate as a number of the run."""
    if number is Decimal and isinstance(rate, Fraction):
        return decimal(rate)
    if isinstance(number, type) and issubclass(number, Rounded) and problem.schedule:
        return number(rate, SCHEDULE_ERROR * problem.optimizer.learning_rate)
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
    precision: Precision | type[Rounded] | None = None,
    stages: Stages = STAGES,
    updates: int | None = None,
) -> list[Snapshot]:
    """The first `updates` of `run`, or all of them, with decimals of 60 digits.

    Fractions and decimals do not overflow: they skip the windows that the problem's dtype skips.
    """
    if precision in ("fraction", "decimal") and problem.non_finite == "skip":
        taken = iter(updated(problem, updates))
        stages = replace(stages, finite=lambda gradient, at: next(taken))
    with localcontext(Context(prec=DIGITS)), np.errstate(over="ignore", invalid="ignore"):
        return list(islice(run(problem, precision, stages), updates))


def updated(problem: Problem, windows: int | None = None) -> list[bool]:
    """Whether each window, in the problem's own dtype, is an update or is skipped."""
    if problem.non_finite != "skip":
        return [True] * problem.updates
    counts = [0, *(each.updates for each in snapshots(problem, updates=windows))]
    return [after > before for before, after in pairwise(counts)]


def trajectory(
    problem: Problem,
    precision: Precision | type[Rounded] | None = None,
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
