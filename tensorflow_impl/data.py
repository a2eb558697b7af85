"""From a problem to tensors, windows, and back to NumPy."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

# x: (examples, features), y: (examples, outputs)
Batch = tuple[tf.Tensor, tf.Tensor]
# W: (features, outputs), b: (outputs,)
Parameters = tuple[tf.Variable, tf.Variable]


def load(problem: Any) -> tuple[Parameters, list[Batch]]:
    """Return the parameters and one epoch as tensors."""
    W = tf.Variable(problem.W)
    b = tf.Variable(problem.b)
    pairs = problem.micro_batches
    epoch = [
        (tf.constant(x), tf.constant(y)) for x, y in pairs
    ]
    return (W, b), epoch


def windows(
    micro_batches: Sequence[Batch], accumulation_steps: int
) -> Iterator[Sequence[Batch]]:
    """Cut an epoch into windows; the last may be partial."""
    count = len(micro_batches)
    for start in range(0, count, accumulation_steps):
        yield micro_batches[
            start : start + accumulation_steps
        ]


def snapshot(parameters: Parameters) -> list[np.ndarray]:
    """Copy to NumPy; a variable's .numpy() is a copy."""
    return [p.numpy() for p in parameters]
