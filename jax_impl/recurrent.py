"""A recurrent network, whose gradient is a sum over time.

Its weights are used at every time step, and grad() of a scan
adds up what each use contributes. Truncated, the sequence is
cut into chunks, each has a grad(), and the sum is your own.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from .data import Batch
from .model import linear_model, squared_error
from .precision import float64

# U: (features, units), V: (units, units), c: (units,),
# W: (units, outputs), b: (outputs,)
Weights = Sequence[Array]


def cell(
    x: Array, h: Array, U: Array, V: Array, c: Array
) -> Array:
    """Return the next hidden state, (examples, units)."""
    return jnp.tanh(x @ U + h @ V + c)


def chunk_loss(
    weights: Weights, chunk: Batch, h: Array, pairs: int
) -> tuple[Array, Array]:
    """Return the squared error, per pair, and the last h.

    x: (time steps, examples, features), y: (.., .., outputs).
    Pass the (time step, example) pairs of the whole sequence,
    and the losses of its chunks add up to its loss.
    """
    U, V, c, W, b = weights

    def time_step(h: Array, xy: Batch) -> tuple[Array, Array]:
        x, y = xy
        h = cell(x, h, U, V, c)
        prediction = linear_model(h, W, b)
        return h, squared_error(prediction, y, pairs)

    h, losses = jax.lax.scan(time_step, h, chunk)
    return losses.sum(), h


@jax.jit
def chunk_gradient(
    weights: Weights, chunk: Batch, h: Array, pairs: int
) -> tuple[list[Array], Array]:
    """Return the gradient through a chunk, and the last h."""
    # gradient + accumulate: scan, reversed, carries the sum.
    grad = jax.grad(chunk_loss, has_aux=True)
    return grad(weights, chunk, h, pairs)


def truncated_gradient(
    weights: Weights,
    sequence: Batch,
    h: Array,
    pairs: int,
    length: int,
) -> tuple[list[Array], Array]:
    """Return the chunks' gradients, added up, and the last h.

    What a loss owes to earlier chunks, by way of h, is left
    out: not the gradient, but one chunk's memory is enough.
    """
    sums = [jnp.zeros_like(weight) for weight in weights]
    x, y = sequence
    for start in range(0, len(x), length):
        time = slice(start, start + length)
        chunk = x[time], y[time]
        # cut: nothing to do; grad() takes h for a constant.
        gradients, h = chunk_gradient(
            weights, chunk, h, pairs
        )
        # accumulate: nobody adds up the chunks but you.
        sums = [t + g for t, g in zip(sums, gradients)]
    return sums, h


@float64()
def gradient(problem: Any) -> list[np.ndarray]:
    """Return U, V, c, W and b's gradients, and the last h."""
    p = problem
    given = p.x, p.y, p.h, p.U, p.V, p.c, p.W, p.b
    x, y, h, *weights = map(jnp.asarray, given)
    task = weights, (x, y), h, p.pairs
    if p.length is None:
        gradients, h = chunk_gradient(*task)
    else:
        gradients, h = truncated_gradient(*task, p.length)
    return [np.asarray(t) for t in (*gradients, h)]
