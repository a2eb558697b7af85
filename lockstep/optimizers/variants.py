"""The optimizers that are compared: each rule, and each of its variants that a port gets wrong."""

from __future__ import annotations

from dataclasses import replace

from lockstep.problem import Problem, iris_sgd
from lockstep.problem.settings import Optimizer, Schedule

UPDATES = 200

# name: torch.optim's settings; what is not given is its default
VARIANTS = {
    "sgd": Optimizer("sgd", 0.01),
    "momentum": Optimizer("sgd", 0.01, momentum=0.9),
    "dampening": Optimizer("sgd", 0.01, momentum=0.9, dampening=0.5),
    "nesterov": Optimizer("sgd", 0.01, momentum=0.9, nesterov=True),
    "sgd-decay": Optimizer("sgd", 0.01, momentum=0.9, weight_decay=0.1),
    "adam": Optimizer("adam", 0.01),
    "adam-decay": Optimizer("adam", 0.01, weight_decay=0.1),
    "adamw": Optimizer("adamw", 0.01),
    "amsgrad": Optimizer("adam", 0.01, amsgrad=True),
    "adamax": Optimizer("adamax", 0.01),
    "nadam": Optimizer("nadam", 0.01),
    "rmsprop": Optimizer("rmsprop", 0.01),
    "rmsprop-momentum": Optimizer("rmsprop", 0.001, momentum=0.9),
    "rmsprop-centered": Optimizer("rmsprop", 0.01, centered=True),
    "adagrad": Optimizer("adagrad", 0.1),
    "adadelta": Optimizer("adadelta", 1.0),
    "lion": Optimizer("lion", 0.001, weight_decay=0.1),
}


def on_iris(optimizer: Optimizer, dtype: str = "float64", updates: int = UPDATES) -> Problem:
    """Iris in ragged and partial windows, at a rate that falls to zero.

    At a constant one RMSprop never comes to rest, and its rounding errors grow without end; and
    a moving rate tells momentum that holds the rate from momentum that does not.
    """
    problem = iris_sgd(dtype, updates=updates)
    return replace(problem, optimizer=optimizer, schedule=Schedule(problem.updates))
