"""From a problem to tensors, windows, and back to NumPy."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from .problem import Problem

# x: (examples, features), y: (examples, outputs)
Batch = tuple[tf.Tensor, tf.Tensor]
# and weights: (examples, 1)
Weighted = tuple[tf.Tensor, tf.Tensor, tf.Tensor]
# W: (features, outputs), b: (outputs,)
Parameters = tuple[tf.Variable, tf.Variable]


def load(problem: Problem) -> tuple[Parameters, list[Batch]]:
    """Return the parameters and one epoch as tensors."""
    W = tf.Variable(problem.W)
    b = tf.Variable(problem.b)
    pairs = problem.micro_batches
    epoch = [
        (tf.constant(x), tf.constant(y)) for x, y in pairs
    ]
    return (W, b), epoch


def require_plain(problem: Problem) -> None:
    """Refuse what the plain loop leaves to recipe.py."""
    if not problem.uses_only():
        raise NotImplementedError("recipe.py trains this")


def windows(
    micro_batches: Sequence[Any], accumulation_steps: int
) -> Iterator[Sequence[Any]]:
    """Cut an epoch into windows; the last may be partial."""
    count = len(micro_batches)
    for start in range(0, count, accumulation_steps):
        yield micro_batches[
            start : start + accumulation_steps
        ]


def load_weighted(
    problem: Problem,
) -> tuple[Parameters, list[Weighted]]:
    """Load parameters, and an epoch with its weights."""
    parameters, epoch = load(problem)
    weights = problem.example_weights
    if weights is None:
        weights = [np.ones(len(x)) for x, _ in epoch]
    columns = [
        w[:, None].astype(problem.dtype) for w in weights
    ]
    return parameters, [
        (x, y, tf.constant(w))
        for (x, y), w in zip(epoch, columns)
    ]


def windows_of_run(
    epoch: list[Weighted], problem: Problem
) -> Iterator[Sequence[Weighted]]:
    """Cut a run; a policy settles an epoch's partial window.

    "apply" it, "drop" it, or "carry" it: one long epoch.
    """
    steps, policy = (
        problem.accumulation_steps,
        problem.partial_windows,
    )
    epochs = [epoch] * problem.epochs
    if policy == "carry":
        epochs = [epoch * problem.epochs]
    for micro_batches in epochs:
        for window in windows(micro_batches, steps):
            if policy == "apply" or len(window) == steps:
                yield window


def snapshot(parameters: Parameters) -> list[np.ndarray]:
    """Copy to NumPy; a variable's .numpy() is a copy."""
    return [p.numpy() for p in parameters]
