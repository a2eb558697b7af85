"""The same loop, in a form that every framework rounds alike.

Nothing is left to choose: micro-batches of one example, so
that accumulation fixes the order of summation; explicit sums
instead of matrix products; elementary operations with numbers
from the host instead of a library's fused optimizer. Only
below the normal range, where some flush to zero, bits differ.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from .adam import Moments
from .constants import Numbers, constants
from .data import Batch, Parameters, load, snapshot, windows
from .ordered import ordered_clip, ordered_model
from .precision import in_float64
from .problem import Problem
from .rules import find_rule, zeros
from .schedule import learning_rates

Function = Callable[..., Any]


def micro_loss(
    parameters: Parameters, micro_batch: Batch, mean: float
) -> Array:
    """Return one example's share of the window's loss."""
    x, y = micro_batch
    prediction = ordered_model(x, *parameters)
    return jnp.square(prediction - y).sum() * mean


def ordered_gradient(
    parameters: Parameters,
    window: Sequence[Batch],
    mean: float,
) -> Sequence[Array]:
    """Return the gradient of the window's mean loss."""
    sums = jax.tree.map(jnp.zeros_like, parameters)
    for micro_batch in window:
        gradients = jax.grad(micro_loss)(
            parameters, micro_batch, mean
        )
        sums = jax.tree.map(jnp.add, sums, gradients)
    return sums


def ordered_update(
    rule: Function,
    parameters: Parameters,
    moments: list[Moments],
    window: Sequence[Batch],
    numbers: Numbers,
) -> tuple[Parameters, list[Moments]]:
    """Return parameters and moments one update later."""
    gradients = ordered_gradient(
        parameters, window, numbers["mean"]
    )
    if "max_norm" in numbers:
        gradients = ordered_clip(
            gradients, numbers["max_norm"]
        )
    (W, W_moments), (b, b_moments) = (
        rule(p, g, m, numbers)
        for p, g, m in zip(parameters, gradients, moments)
    )
    return (W, b), [W_moments, b_moments]


@in_float64
def train(
    problem: Problem,
    compiler: Callable[[Function], Function] = lambda f: f,
) -> Iterator[list[np.ndarray]]:
    """Yield [W, b] as NumPy arrays after every update.

    Raises NotImplementedError as find_rule does.
    """
    rule = find_rule(problem)
    compiled = compiler(partial(ordered_update, rule))
    parameters, epoch = load(problem)
    moments = zeros(parameters)
    steps = problem.accumulation_steps
    run = problem.epochs * list(windows(epoch, steps))
    rates = learning_rates(problem)
    for update, window in enumerate(run):
        numbers = constants(
            problem, rates, update, len(window)
        )
        parameters, moments = compiled(
            parameters, moments, window, numbers
        )
        yield snapshot(parameters)
