"""A recurrent network, whose gradient is a sum over time.

Its weights are used at every time step, and one gradient()
adds up what each use contributes. Truncated, the sequence is
cut into chunks, each has a tape, and the sum is your own.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from .data import Batch
from .model import linear_model, squared_error

# U: (features, units), V: (units, units), c: (units,),
# W: (units, outputs), b: (outputs,)
Weights = Sequence[tf.Variable]


def cell(
    x: tf.Tensor,
    h: tf.Tensor,
    U: tf.Tensor,
    V: tf.Tensor,
    c: tf.Tensor,
) -> tf.Tensor:
    """Return the next hidden state, (examples, units)."""
    return tf.tanh(x @ U + h @ V + c)


def chunk_loss(
    weights: Weights, chunk: Batch, h: tf.Tensor, pairs: int
) -> tuple[tf.Tensor, tf.Tensor]:
    """Return the squared error, per pair, and the last h.

    x: (time steps, examples, features), y: (.., .., outputs).
    Pass the (time step, example) pairs of the whole sequence,
    and the losses of its chunks add up to its loss.
    """
    U, V, c, W, b = weights
    loss = 0.0
    for x, y in zip(*chunk):
        h = cell(x, h, U, V, c)
        loss += squared_error(linear_model(h, W, b), y, pairs)
    return loss, h


def chunk_gradient(
    weights: Weights, chunk: Batch, h: tf.Tensor, pairs: int
) -> tuple[list[tf.Tensor], tf.Tensor]:
    """Return the gradient through a chunk, and the last h."""
    with tf.GradientTape() as tape:
        loss, h = chunk_loss(weights, chunk, h, pairs)
    # gradient + accumulate: the tape sums over time steps.
    return tape.gradient(loss, weights), h


def truncated_gradient(
    weights: Weights,
    sequence: Batch,
    h: tf.Tensor,
    pairs: int,
    length: int,
) -> tuple[list[tf.Tensor], tf.Tensor]:
    """Return the chunks' gradients, added up, and the last h.

    What a loss owes to earlier chunks, by way of h, is left
    out: not the gradient, but one chunk's memory is enough.
    """
    sums = [tf.zeros_like(weight) for weight in weights]
    x, y = sequence
    for start in range(0, len(x), length):
        time = slice(start, start + length)
        chunk = x[time], y[time]
        # cut: nothing to do; a new tape knows no past of h.
        gradients, h = chunk_gradient(
            weights, chunk, h, pairs
        )
        # accumulate: nobody adds up the chunks but you.
        sums = [t + g for t, g in zip(sums, gradients)]
    return sums, h


def gradient(problem: Any) -> list[np.ndarray]:
    """Return U, V, c, W and b's gradients, and the last h."""
    p = problem
    x, y, h = map(tf.constant, (p.x, p.y, p.h))
    given = p.U, p.V, p.c, p.W, p.b
    weights = [tf.Variable(weight) for weight in given]
    task = weights, (x, y), h, p.pairs
    if p.length is None:
        gradients, h = chunk_gradient(*task)
    else:
        gradients, h = truncated_gradient(*task, p.length)
    return [t.numpy() for t in (*gradients, h)]
