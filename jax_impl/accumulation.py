"""optax's accumulator, which wraps an optimizer."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array

from .data import Parameters, windows


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
        use_grad_mean=False,  # they are shares of a sum
        accumulator_dtype=problem.dtype,  # float32 if not set
    )


@partial(jax.jit, static_argnames="optimizer")
def take_update(
    parameters: Parameters,
    state: optax.OptState,
    optimizer: optax.GradientTransformation,
    gradients: Sequence[Array],
) -> tuple[Parameters, optax.OptState]:
    """Return both one update later, or one micro-step.

    optax counts updates by itself, and looks the rate up.
    """
    updates, state = optimizer.update(
        gradients, state, parameters
    )
    return optax.apply_updates(parameters, updates), state
