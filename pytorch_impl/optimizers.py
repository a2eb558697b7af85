"""Which of the library's optimizers a problem takes."""

from torch.optim import Optimizer

from . import library
from .data import Parameters
from .problem import Problem

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
    decays = [True, problem.decay_bias]
    groups = [
        {
            "params": [p],
            "lr": settings.learning_rate,
            "weight_decay": decay * settings.weight_decay,
        }
        for p, decay in zip(parameters, decays, strict=True)
    ]
    return RULES[settings.name](groups, settings)
