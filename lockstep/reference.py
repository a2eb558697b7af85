"""The oracle: one accumulation loop made of named stages, in NumPy, at any precision.

It shares no code with the implementation folders and uses no automatic differentiation: the
gradient of a linear model is one line. On float64 and float32 it performs, one elementary
operation at a time, the operations that every `bitwise.py` performs, and so holds their bits. On
`Fraction` it is exact; on `Decimal`, at 60 digits, rounding does not matter, and a square root is
to be had. Every other run is measured against these.

A mistake is this loop with one or two stages replaced: `dataclasses.replace(STAGES, reset=keep)`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from decimal import Decimal, localcontext
from fractions import Fraction
from itertools import islice
from typing import Any, Literal

import numpy as np

from lockstep.problem import Array, Optimizer, Problem

# W above b, as one array (features + 1, outputs): a bias is the weight of a feature that is 1.
Theta = Array
Number = Any  # float, Fraction or Decimal: what the settings are turned into
State = tuple[Any, Any]
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
    """Scale to the global norm `max_norm` where it is exceeded."""
    if max_norm is None:
        return gradient
    norm = square_root((gradient * gradient).sum())
    return gradient * (max_norm / norm) if norm > max_norm else gradient


def learning_rate(problem: Problem, update: int) -> float:
    """The learning rate of an update, counted from 0 in updates, never in micro-steps."""
    if problem.learning_rates is None:
        return problem.optimizer.learning_rate
    return problem.learning_rates[update]


def sgd(
    theta: Theta, gradient: Theta, state: State, rate: Number, settings: Optimizer, update: int
) -> tuple[Theta, State]:
    """`torch.optim.SGD` without dampening: momentum in buffer form, coupled decay."""
    number = type(rate)
    gradient = gradient + theta * number(settings.weight_decay)
    buffer = state[0] * number(settings.momentum) + gradient
    return theta - buffer * rate, (buffer, state[1])


def adamw(
    theta: Theta, gradient: Theta, state: State, rate: Number, settings: Optimizer, update: int
) -> tuple[Theta, State]:
    """AdamW (Loshchilov and Hutter, 2019), by multiplications with host scalars only.

    sqrt(v) is v (1 / sqrt(v)), the form that rounds alike in every framework; v is kept above the
    smallest normal number, so that v = 0 gives 0.
    """
    number = type(rate)
    beta1, beta2 = map(number, settings.betas)
    m, v = state
    m = m * beta1 + gradient * (1 - beta1)
    v = v * beta2 + (gradient * gradient) * (1 - beta2)
    tiny = number(np.finfo("float32" if v.dtype == "float32" else "float64").tiny)
    root = v * (1 / np.sqrt(np.maximum(v, tiny)))
    unbiased = root * (1 / square_root(1 - beta2 ** (update + 1))) + number(settings.eps)
    theta = theta * (1 - rate * number(settings.weight_decay))
    return theta - (m / unbiased) * (rate / (1 - beta1 ** (update + 1))), (m, v)


def square_root(x: Number) -> Number:
    """The square root in the number's own precision; a float's is a host scalar."""
    return x.sqrt() if isinstance(x, Decimal) else math.sqrt(x)


RULES: dict[str, Callable[..., tuple[Theta, State]]] = {"sgd": sgd, "adamw": adamw}


def apply_rule(
    theta: Theta, gradient: Theta, state: State, rate: Number, settings: Optimizer, update: int
) -> tuple[Theta, State]:
    """The optimizer's rule, once an update, under `torch.optim`'s definition."""
    return RULES[settings.name](theta, gradient, state, rate, settings, update)


def reset(accumulator: Theta) -> Theta:
    """An empty accumulator; to multiply by zero would keep a NaN, and the sign of a zero."""
    return np.zeros_like(accumulator)


@dataclass(frozen=True)
class Stages:
    """The stages of one window, in the order in which they run."""

    weigh: Callable[[int, int, Number], Number] = weigh
    accumulate: Callable[[Theta, Theta], Theta] = accumulate
    boundary: Callable[[int, int, int], bool] = boundary
    normalise: Callable[[Theta, int], Theta] = normalise
    clip: Callable[[Theta, float | None], Theta] = clip
    learning_rate: Callable[[Problem, int], float] = learning_rate
    apply_rule: Callable[..., tuple[Theta, State]] = apply_rule
    reset: Callable[[Theta], Theta] = reset


STAGES = Stages()


def predict(theta: Theta, x: Array) -> Array:
    """x W + b, summed from b over the features in order; (examples, outputs)."""
    *W, b = theta
    return sum((x[:, [feature]] * row for feature, row in enumerate(W)), b)


def gradient(theta: Theta, x: Array, y: Array, weight: Number) -> Theta:
    """The gradient of weight * squared error, summed over the micro-batch's examples."""
    error = predict(theta, x) - y
    x = np.hstack([x, np.ones_like(x[:, :1])])
    return (x[:, :, None] * ((error + error) * weight)[:, None, :]).sum(axis=0)


def train(
    problem: Problem, precision: Precision | None = None, stages: Stages = STAGES
) -> Iterator[Theta]:
    """Yield W above b, (features + 1, outputs), after every update.

    `precision` is the problem's own dtype unless given. Raises NotImplementedError for what a
    fraction cannot hold, the square root in AdamW and in clipping.
    """
    precision = precision or problem.dtype  # type: ignore[assignment]
    number = {"fraction": Fraction, "decimal": Decimal}.get(precision, float)  # type: ignore
    if number is Fraction and (problem.optimizer.name != "sgd" or problem.max_norm is not None):
        raise NotImplementedError("fractions have no square root: no AdamW, no clipping")

    def cast(array: Array) -> Array:
        if number is float:
            return array.astype(precision)
        return np.frompyfunc(number, 1, 1)(array.astype("float64").astype(object))

    theta = cast(np.vstack([problem.W, problem.b]))
    micro_batches = [(cast(x), cast(y)) for x, y in problem.micro_batches]
    max_norm = None if problem.max_norm is None else number(problem.max_norm)
    k, count = problem.accumulation_steps, len(micro_batches)
    sizes = [len(x) for x, _ in micro_batches]
    accumulator, state = np.zeros_like(theta), (np.zeros_like(theta), np.zeros_like(theta))
    update = 0
    for _ in range(problem.epochs):
        for micro_step, (x, y) in enumerate(micro_batches):
            start = micro_step // k * k
            weight = stages.weigh(len(x), sum(sizes[start : start + k]), number(1))
            accumulator = stages.accumulate(accumulator, gradient(theta, x, y, weight))
            if stages.boundary(micro_step, count, k):
                mean = stages.clip(stages.normalise(accumulator, k), max_norm)
                rate = number(stages.learning_rate(problem, update))
                theta, state = stages.apply_rule(
                    theta, mean, state, rate, problem.optimizer, update
                )
                accumulator = stages.reset(accumulator)
                update += 1
                yield theta


def trajectory(
    problem: Problem,
    precision: Precision | None = None,
    stages: Stages = STAGES,
    updates: int | None = None,
) -> list[Theta]:
    """The first `updates` of `train`, or all of them, with decimals of 60 digits."""
    with localcontext(prec=DIGITS), np.errstate(over="ignore", invalid="ignore"):
        return list(islice(train(problem, precision, stages), updates))


def loss(theta: Theta, problem: Problem) -> float:
    """The objective over one epoch: the mean over examples of the summed squared error."""
    x, y = problem.examples
    error = predict(theta.astype(np.float64), x.astype(np.float64)) - y
    return float(np.sum(error * error) / len(x))
