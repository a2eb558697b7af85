"""From a problem to tensors, windows, and back to NumPy."""

from collections.abc import Iterator, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array

# x: (examples, features), y: (examples, outputs)
Batch = tuple[Array, Array]
# W: (features, outputs), b: (outputs,)
Parameters = tuple[Array, Array]


def load(problem: Any) -> tuple[Parameters, list[Batch]]:
    """Return the parameters and one epoch as tensors."""
    W = jnp.asarray(problem.W)
    b = jnp.asarray(problem.b)
    pairs = problem.micro_batches
    epoch = [
        (jnp.asarray(x), jnp.asarray(y)) for x, y in pairs
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
    """View as NumPy; a JAX array never changes."""
    return [np.asarray(p) for p in parameters]
