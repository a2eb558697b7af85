"""Which of the library's optimizers a problem takes."""

import jax.numpy as jnp
import optax
from optax import GradientTransformation as Transformation

from . import library
from .accumulation import once
from .data import Parameters
from .problem import Problem
from .schedule import learning_rates

RULES = {
    "sgd": library.sgd,
    "adam": library.adam,
    "adamw": library.adam,
    "adamax": library.adamax,
    "nadam": library.nadam,
    "rmsprop": library.rmsprop,
    "adagrad": library.adagrad,
    "adadelta": library.adadelta,
    "lion": library.lion,
}


@once
def make_optimizer(
    parameters: Parameters, problem: Problem
) -> Transformation:
    """Return the problem's optimizer, for W and b alone."""
    settings = problem.optimizer
    rates = jnp.array(learning_rates(problem), problem.dtype)
    direction = RULES[settings.name](settings)
    decay = optax.add_decayed_weights(
        settings.weight_decay, mask=(True, problem.decay_bias)
    )
    # Before the direction, decay is coupled to the gradient.
    parts = [decay, direction][
        :: -1 if settings.decoupled else 1
    ]
    rate = optax.scale_by_learning_rate(rates.__getitem__)
    return optax.chain(*parts, rate)
