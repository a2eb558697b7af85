"""optax's accumulator, which wraps an optimizer."""

from typing import Any

import jax.numpy as jnp
import optax

from .data import windows


def accumulating(
    optimizer: optax.GradientTransformation, problem: Any
) -> optax.MultiSteps:
    """Let an optimizer update once a window, however long."""
    epoch = windows(
        problem.micro_batches, problem.accumulation_steps
    )
    # MultiSteps counts in int32, and so must its schedule.
    lengths = jnp.array([len(w) for w in epoch], jnp.int32)
    return optax.MultiSteps(
        optimizer,
        lambda update: lengths[update % len(lengths)],
        use_grad_mean=False,  # a running mean would round
        accumulator_dtype=problem.dtype,  # float32 if not set
    )
