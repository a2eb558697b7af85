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

import numpy as np
import tensorflow as tf

from .adam import Moments
from .constants import Numbers, as_tensors, constants
from .data import Batch, Parameters, load, snapshot, windows
from .ordered import ordered_clip, ordered_model
from .problem import Problem
from .rules import find_rule, zeros
from .schedule import learning_rates

Function = Callable[..., Any]


def ordered_gradient(
    parameters: Parameters,
    window: Sequence[Batch],
    mean: float,
) -> Sequence[tf.Tensor]:
    """Return the gradient of the window's mean loss."""
    sums = tf.nest.map_structure(tf.zeros_like, parameters)
    for x, y in window:
        with tf.GradientTape() as tape:
            prediction = ordered_model(x, *parameters)
            error = tf.square(prediction - y)
            loss = tf.reduce_sum(error) * mean
        gradients = tape.gradient(loss, parameters)
        sums = tf.nest.map_structure(tf.add, sums, gradients)
    return sums


def ordered_update(
    rule: Function,
    parameters: Parameters,
    moments: list[Moments],
    window: Sequence[Batch],
    numbers: Numbers,
) -> list[Moments]:
    """Take one update in place; return the moments."""
    gradients = ordered_gradient(
        parameters, window, numbers["mean"]
    )
    if "max_norm" in numbers:
        gradients = ordered_clip(
            gradients, numbers["max_norm"]
        )
    new_moments = []
    for p, g, m in zip(parameters, gradients, moments):
        new_p, new_m = rule(p, g, m, numbers)
        p.assign(new_p)
        new_moments.append(new_m)
    return new_moments


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
        found = constants(problem, rates, update, len(window))
        numbers = as_tensors(found, problem.dtype)
        moments = compiled(
            parameters, moments, window, numbers
        )
        yield snapshot(parameters)
