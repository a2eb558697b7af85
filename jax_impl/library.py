"""The library's own optimizers, set to take the update.

What optax's cannot be set to stands in adapted.py. Settings
have PyTorch's names. Decay and rate are left out here.
"""

from typing import Any

import jax.numpy as jnp
import optax
from optax import GradientTransformation as Transformation

from . import adapted


def sgd(settings: Any) -> Transformation:
    """Return SGD; dampening spares the first update."""
    if not settings.momentum:
        return optax.identity()
    return optax.chain(
        optax.scale_by_schedule(
            lambda n: jnp.where(
                n == 0, 1, 1 - settings.dampening
            )
        ),
        optax.trace(settings.momentum, settings.nesterov),
    )


def adam(settings: Any) -> Transformation:
    """Return Adam, AdamW or AMSGrad."""
    scale = optax.scale_by_adam
    if settings.amsgrad:
        scale = adapted.scale_by_amsgrad
    return scale(*settings.betas, settings.eps)


def adamax(settings: Any) -> Transformation:
    """Return Adamax."""
    return optax.scale_by_adamax(
        *settings.betas, settings.eps
    )


def nadam(settings: Any) -> Transformation:
    """Return NAdam."""
    b1, b2 = settings.betas
    return adapted.scale_by_nadam(
        b1, b2, settings.eps, settings.momentum_decay
    )


def rmsprop(settings: Any) -> Transformation:
    """Return RMSprop, plain, with momentum, or centered."""
    scale = optax.scale_by_rms
    if settings.centered:
        scale = optax.scale_by_stddev
    direction = scale(
        settings.alpha, settings.eps, eps_in_sqrt=False
    )
    if settings.momentum:
        # The stock rmsprop has the rate before the momentum.
        return optax.chain(
            direction, optax.trace(settings.momentum)
        )
    return direction


def adagrad(settings: Any) -> Transformation:
    """Return Adagrad."""
    start = settings.initial_accumulator_value
    return optax.chain(
        adapted.scale_by_rss(start, settings.eps),
        optax.scale_by_schedule(
            lambda n: 1 / (1 + n * settings.lr_decay)
        ),
    )


def adadelta(settings: Any) -> Transformation:
    """Return Adadelta."""
    return optax.scale_by_adadelta(settings.rho, settings.eps)


def lion(settings: Any) -> Transformation:
    """Return Lion."""
    return optax.scale_by_lion(*settings.betas)
