"""The library's own optimizers, set to take the update.

What Keras's cannot be set to stands in adapted*.py. `rate`
is a schedule; settings have PyTorch's names. Keras makes
float32 of a plain Python beta; np.float64 stays.
"""

from typing import Any

import numpy as np
from keras.optimizers import Optimizer

from . import adapted, adapted_adam


def sgd(rate: Any, settings: Any) -> Optimizer:
    """Return SGD, with or without momentum."""
    return adapted.SGD(settings, rate, settings.momentum)


def adam(rate: Any, settings: Any) -> Optimizer:
    """Return Adam, AdamW or AMSGrad."""
    beta1, beta2 = map(np.float64, settings.betas)
    return adapted_adam.Adam(
        settings,
        rate,
        beta1,
        beta2,
        settings.eps,
        amsgrad=settings.amsgrad,
    )


def adamax(rate: Any, settings: Any) -> Optimizer:
    """Return Adamax."""
    return adapted_adam.Adamax(
        settings, rate, *settings.betas, settings.eps
    )


def nadam(rate: Any, settings: Any) -> Optimizer:
    """Return NAdam."""
    return adapted_adam.Nadam(
        settings, rate, *settings.betas, settings.eps
    )


def rmsprop(rate: Any, settings: Any) -> Optimizer:
    """Return RMSprop, plain, with momentum, or centered."""
    return adapted.RMSprop(
        settings,
        rate,
        settings.alpha,
        settings.momentum,
        settings.eps,
        settings.centered,
    )


def adagrad(rate: Any, settings: Any) -> Optimizer:
    """Return Adagrad."""
    start = np.float64(settings.initial_accumulator_value)
    return adapted.Adagrad(
        settings, rate, start, settings.eps
    )


def adadelta(rate: Any, settings: Any) -> Optimizer:
    """Return Adadelta."""
    return adapted.Adadelta(
        settings, rate, settings.rho, settings.eps
    )


def lion(rate: Any, settings: Any) -> Optimizer:
    """Return Lion."""
    return adapted.Lion(
        settings, rate, *map(np.float64, settings.betas)
    )
