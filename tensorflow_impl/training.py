"""Gradient accumulation with a tape: the sum is yours."""

from collections.abc import Iterator, Sequence

import numpy as np
import tensorflow as tf
from keras.optimizers import Optimizer

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
from .problem import Problem


def gradient_descent(
    parameters: Parameters, batch: Batch, learning_rate: float
) -> None:
    """Take one update in place, with no optimizer object."""
    (W, b), (x, y) = parameters, batch
    with tf.GradientTape() as tape:
        loss = squared_error(linear_model(x, W, b), y, len(x))
    W_gradient, b_gradient = tape.gradient(loss, (W, b))
    W.assign_sub(learning_rate * W_gradient)
    b.assign_sub(learning_rate * b_gradient)


# tf.function would trace this once for each length.
def train_window(
    parameters: Parameters,
    optimizer: Optimizer,
    window: Sequence[Batch],
) -> tf.Tensor:
    """Take one update in place; return the window's loss."""
    examples = sum(len(x) for x, _ in window)
    window_loss = 0.0
    # reset: a tape keeps nothing; the zeros are your own.
    accumulators = [tf.zeros_like(p) for p in parameters]
    for x, y in window:
        # forward: the tape records what runs inside it.
        with tf.GradientTape() as tape:
            prediction = linear_model(x, *parameters)
            loss = squared_error(prediction, y, examples)
        # gradient: the tape returns new tensors and is spent.
        gradients = tape.gradient(loss, parameters)
        # accumulate: nobody adds them up but you.
        pairs = zip(accumulators, gradients)
        accumulators = [a + g for a, g in pairs]
        window_loss += loss
    # update: the optimizer takes any gradients you give it.
    optimizer.apply_gradients(zip(accumulators, parameters))
    return window_loss


def train(problem: Problem) -> Iterator[list[np.ndarray]]:
    """Yield [W, b] as NumPy arrays after every update.

    Raises NotImplementedError unless the update is plain.
    """
    require_plain(problem)
    parameters, epoch = load(problem)
    optimizer = make_optimizer(parameters, problem)
    steps = problem.accumulation_steps
    for _ in range(problem.epochs):
        for window in windows(epoch, steps):
            train_window(parameters, optimizer, window)
            yield snapshot(parameters)
