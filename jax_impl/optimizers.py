"""The library's own optimizer, set to take the update."""

from typing import Any

import jax.numpy as jnp
import optax

from .data import Parameters, windows


def require_plain_sgd(problem: Any) -> None:
    """Refuse decay, a schedule, clipping, another rule."""
    plain = (
        problem.optimizer.name == "sgd"
        and problem.optimizer.weight_decay == 0
        and problem.learning_rates is None
        and problem.max_norm is None
    )
    if not plain:
        raise NotImplementedError("SGD at one rate only")


def make_optimizer(
    parameters: Parameters, problem: Any
) -> optax.MultiSteps:
    """Return optax's SGD with the problem's settings.

    Raises NotImplementedError unless it is plain SGD.
    """
    require_plain_sgd(problem)
    settings = problem.optimizer
    steps = problem.accumulation_steps
    # MultiSteps counts in int32, and so must its schedule.
    epoch = windows(problem.micro_batches, steps)
    lengths = jnp.array([len(w) for w in epoch], jnp.int32)
    return optax.MultiSteps(
        optax.sgd(settings.learning_rate, settings.momentum),
        lambda update: lengths[update % len(lengths)],
        use_grad_mean=False,  # a running mean would round
        accumulator_dtype=problem.dtype,  # float32 if not set
    )
