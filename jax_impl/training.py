"""Gradient accumulation with optax: state goes around."""

from collections.abc import Iterator, Sequence

import jax
import numpy as np
import optax
from jax import Array

from .accumulation import accumulating, apply_gradients
from .data import (
    Batch,
    Parameters,
    load,
    require_plain,
    snapshot,
    windows,
)
from .model import linear_model, squared_error
from .optimizers import make_optimizer
from .precision import in_float64
from .problem import Problem


def gradient_descent(
    parameters: Parameters, batch: Batch, learning_rate: float
) -> Parameters:
    """Return the parameters one update later."""
    gradients = jax.grad(micro_loss)(
        parameters, batch, len(batch[0])
    )
    return jax.tree.map(
        lambda p, g: p - learning_rate * g,
        parameters,
        gradients,
    )


def micro_loss(
    parameters: Parameters, micro_batch: Batch, examples: int
) -> Array:
    """Return a micro-batch's share of its window's loss."""
    x, y = micro_batch
    prediction = linear_model(x, *parameters)
    return squared_error(prediction, y, examples)


# Compiled once for each shape of a micro-batch.
micro_gradient = jax.jit(jax.value_and_grad(micro_loss))


def train_window(
    parameters: Parameters,
    state: optax.MultiStepsState,
    optimizer: optax.MultiSteps,
    window: Sequence[Batch],
) -> tuple[Parameters, optax.MultiStepsState, Array]:
    """Return parameters, state and loss one update later."""
    examples = sum(len(x) for x, _ in window)
    window_loss = 0.0
    # reset: nothing to do; MultiSteps empties its own sum.
    for micro_batch in window:
        # forward + gradient: one function returns both.
        loss, gradients = micro_gradient(
            parameters, micro_batch, examples
        )
        # accumulate + update: zeros until the window is full.
        parameters, state = apply_gradients(
            parameters, state, optimizer, gradients
        )
        window_loss += loss
    return parameters, state, window_loss


@in_float64
def train(problem: Problem) -> Iterator[list[np.ndarray]]:
    """Yield [W, b] as NumPy arrays after every update.

    Raises NotImplementedError unless the update is plain.
    """
    require_plain(problem)
    parameters, epoch = load(problem)
    optimizer = accumulating(
        make_optimizer(parameters, problem), problem
    )
    state = optimizer.init(parameters)
    steps = problem.accumulation_steps
    for _ in range(problem.epochs):
        for window in windows(epoch, steps):
            parameters, state, _ = train_window(
                parameters, state, optimizer, window
            )
            yield snapshot(parameters)
