"""The library's own optimizer, set to take the update.

What Keras's cannot be set to stands in adapted*.py. `rate`
is a schedule, `s` the settings in PyTorch's names. Keras
makes float32 of a plain Python beta; np.float64 stays.
"""

from typing import Any

import numpy as np
from keras.optimizers import Optimizer

from . import adapted, adapted_adam
from .data import Parameters
from .neutral import Table
from .schedule import learning_rates


def sgd(rate: Any, s: Any) -> Optimizer:
    """Return SGD, with or without momentum."""
    return adapted.SGD(s, rate, s.momentum)


def adam(rate: Any, s: Any) -> Optimizer:
    """Return Adam, AdamW or AMSGrad."""
    beta1, beta2 = map(np.float64, s.betas)
    return adapted_adam.Adam(
        s, rate, beta1, beta2, s.eps, amsgrad=s.amsgrad
    )


adamw = adam


def adamax(rate: Any, s: Any) -> Optimizer:
    """Return Adamax."""
    return adapted_adam.Adamax(s, rate, *s.betas, s.eps)


def nadam(rate: Any, s: Any) -> Optimizer:
    """Return NAdam."""
    return adapted_adam.Nadam(s, rate, *s.betas, s.eps)


def rmsprop(rate: Any, s: Any) -> Optimizer:
    """Return RMSprop, plain, with momentum, or centered."""
    return adapted.RMSprop(
        s, rate, s.alpha, s.momentum, s.eps, s.centered
    )


def adagrad(rate: Any, s: Any) -> Optimizer:
    """Return Adagrad."""
    start = np.float64(s.initial_accumulator_value)
    return adapted.Adagrad(s, rate, start, s.eps)


def adadelta(rate: Any, s: Any) -> Optimizer:
    """Return Adadelta."""
    return adapted.Adadelta(s, rate, s.rho, s.eps)


def lion(rate: Any, s: Any) -> Optimizer:
    """Return Lion."""
    return adapted.Lion(s, rate, *map(np.float64, s.betas))


def make_optimizer(
    parameters: Parameters, problem: Any
) -> Optimizer:
    """Return the problem's optimizer, for W and b alone."""
    s = problem.optimizer
    rate = Table(learning_rates(problem), problem.dtype)
    optimizer = globals()[s.name](rate, s)
    if s.decoupled:
        optimizer.weight_decay = np.float64(s.weight_decay)
    if not problem.decay_bias:
        optimizer.exclude_from_weight_decay([parameters[1]])
    optimizer.build(parameters)
    return optimizer
