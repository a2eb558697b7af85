"""The library's own optimizer, set to take the update.

What optax's cannot be set to stands in adapted.py. Settings
`s` have PyTorch's names. Decay and rate are added at the end.
"""

from typing import Any

import jax.numpy as jnp
import optax
from optax import GradientTransformation as Transformation

from . import adapted
from .data import Parameters
from .schedule import learning_rates


def sgd(s: Any) -> Transformation:
    """Return SGD; dampening spares the first update."""
    if not s.momentum:
        return optax.identity()
    return optax.chain(
        optax.scale_by_schedule(
            lambda n: jnp.where(n == 0, 1, 1 - s.dampening)
        ),
        optax.trace(s.momentum, s.nesterov),
    )


def adam(s: Any) -> Transformation:
    """Return Adam, AdamW or AMSGrad."""
    scale = optax.scale_by_adam
    if s.amsgrad:
        scale = adapted.scale_by_amsgrad
    return scale(*s.betas, s.eps)


adamw = adam


def adamax(s: Any) -> Transformation:
    """Return Adamax."""
    return optax.scale_by_adamax(*s.betas, s.eps)


def nadam(s: Any) -> Transformation:
    """Return NAdam."""
    b1, b2 = s.betas
    return adapted.scale_by_nadam(
        b1, b2, s.eps, s.momentum_decay
    )


def rmsprop(s: Any) -> Transformation:
    """Return RMSprop, plain, with momentum, or centered."""
    scale = optax.scale_by_rms
    if s.centered:
        scale = optax.scale_by_stddev
    direction = scale(s.alpha, s.eps, eps_in_sqrt=False)
    if s.momentum:
        # The stock rmsprop has the rate before the momentum.
        return optax.chain(direction, optax.trace(s.momentum))
    return direction


def adagrad(s: Any) -> Transformation:
    """Return Adagrad."""
    start = s.initial_accumulator_value
    return optax.chain(
        adapted.scale_by_rss(start, s.eps),
        optax.scale_by_schedule(
            lambda n: 1 / (1 + n * s.lr_decay)
        ),
    )


def adadelta(s: Any) -> Transformation:
    """Return Adadelta."""
    return optax.scale_by_adadelta(s.rho, s.eps)


def lion(s: Any) -> Transformation:
    """Return Lion."""
    return optax.scale_by_lion(*s.betas)


def make_optimizer(
    parameters: Parameters, problem: Any
) -> Transformation:
    """Return the problem's optimizer, for W and b alone."""
    s = problem.optimizer
    rates = jnp.array(learning_rates(problem), problem.dtype)
    direction = globals()[s.name](s)
    decay = optax.add_decayed_weights(
        s.weight_decay, mask=(True, problem.decay_bias)
    )
    # Before the direction, decay is coupled to the gradient.
    parts = [decay, direction][:: -1 if s.decoupled else 1]
    rate = optax.scale_by_learning_rate(rates.__getitem__)
    return optax.chain(*parts, rate)
