"""optax's accumulator, which wraps an optimizer."""

from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array

from .data import Parameters, windows
from .problem import Problem
from .schedule import learning_rates


def once(make: Callable[..., Any]) -> Callable[..., Any]:
    """Make one optimizer for all problems that share it.

    jit knows it by its identity, and would compile again.
    """
    made: dict[Any, Any] = {}

    def get(parameters: Parameters, problem: Problem) -> Any:
        key = (
            problem.optimizer,
            problem.decay_bias,
            problem.dtype,
            tuple(learning_rates(problem)),
        )
        if key not in made:
            made[key] = make(parameters, problem)
        return made[key]

    return get


def accumulating(
    optimizer: optax.GradientTransformation, problem: Problem
) -> optax.MultiSteps:
    """Let an optimizer update once a window, however long."""
    epoch = windows(
        problem.micro_batches, problem.accumulation_steps
    )
    lengths = tuple(len(window) for window in epoch)
    return accumulator(optimizer, lengths, problem.dtype)


@cache  # or apply_gradients would compile for each
def accumulator(
    optimizer: optax.GradientTransformation,
    lengths: tuple[int, ...],
    dtype: str,
) -> optax.MultiSteps:
    """Accumulate over windows of these lengths, in turn."""
    # MultiSteps counts in int32, and so must its schedule.
    every = jnp.array(lengths, jnp.int32)
    return optax.MultiSteps(
        optimizer,
        lambda update: every[update % len(lengths)],
        use_grad_mean=False,  # they are shares of a sum
        accumulator_dtype=dtype,  # float32 if not set
    )


# Compiled once for each optimizer, known by its identity.
@partial(jax.jit, static_argnames="optimizer")
def apply_gradients(
    parameters: Parameters,
    state: optax.OptState,
    optimizer: optax.GradientTransformation,
    gradients: Sequence[Array],
) -> tuple[Parameters, optax.OptState]:
    """Hand gradients to the optimizer; return what it makes.

    optax counts updates by itself, and looks the rate up.
    """
    updates, state = optimizer.update(
        gradients, state, parameters
    )
    return optax.apply_updates(parameters, updates), state
