"""The numbers of one update, made on the host in float64."""

import math
from typing import Any

Numbers = dict[str, Any]


def learning_rate(problem: Any, update: int) -> float:
    """Return the learning rate of an update, from 1."""
    if problem.learning_rates is None:
        return problem.optimizer.learning_rate
    return problem.learning_rates[update - 1]


def constants(
    problem: Any, update: int, examples: int
) -> Numbers:
    """Return what an update multiplies and adds."""
    settings = problem.optimizer
    rate = learning_rate(problem, update)
    beta1, beta2 = settings.betas
    return {
        "mean": 1 / examples,
        "rate": rate,
        "momentum": settings.momentum,
        "l2": settings.weight_decay,
        "decay": 1 - rate * settings.weight_decay,
        "first": (beta1, 1 - beta1),
        "second": (beta2, 1 - beta2),
        "unbias": 1 / math.sqrt(1 - beta2**update),
        "eps": settings.eps,
        "step": rate / (1 - beta1**update),
    }
