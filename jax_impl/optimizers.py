"""The library's own optimizer, set to take the update."""

from typing import Any

import jax.numpy as jnp
import optax

from .data import Parameters, windows


def make_optimizer(
    parameters: Parameters, problem: Any
) -> optax.MultiSteps:
    """Return optax's SGD with the problem's settings.

    Raises NotImplementedError for other optimizers, weight
    decay, a schedule, and clipping.
    """
    settings = problem.optimizer
    if (
        settings.name != "sgd"
        or settings.weight_decay
        or problem.learning_rates is not None
        or problem.max_norm is not None
    ):
        raise NotImplementedError("plain SGD only")
    steps = problem.accumulation_steps
    lengths = [
        len(window)
        for window in windows(problem.micro_batches, steps)
    ]
    return optax.MultiSteps(
        optax.sgd(settings.learning_rate, settings.momentum),
        lambda update: jnp.asarray(lengths, jnp.int32)[
            update % len(lengths)
        ],
        use_grad_mean=False,  # a running mean would round
        accumulator_dtype=problem.dtype,  # float32 if not set
    )
