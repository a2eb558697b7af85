"""Which of the library's optimizers a problem takes."""

import numpy as np
from keras.optimizers import Optimizer

from . import library
from .data import Parameters
from .problem import Problem
from .schedule import learning_rates
from .table import Table

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


def make_optimizer(
    parameters: Parameters, problem: Problem
) -> Optimizer:
    """Return the problem's optimizer, for W and b alone."""
    settings = problem.optimizer
    rate = Table(learning_rates(problem), problem.dtype)
    optimizer = RULES[settings.name](rate, settings)
    if settings.decoupled:
        optimizer.weight_decay = np.float64(
            settings.weight_decay
        )
    if not problem.decay_bias:
        optimizer.exclude_from_weight_decay([parameters[1]])
    optimizer.build(parameters)
    return optimizer
