"""The numbers of one update, made on the host in float64."""

import math
from collections.abc import Sequence
from typing import Any

from .problem import Problem

Numbers = dict[str, Any]


def constants(
    problem: Problem,
    rates: Sequence[float],
    update: int,
    examples: int,
) -> Numbers:
    """Return what an update, from 0, multiplies and adds."""
    settings = problem.optimizer
    rate, t = rates[update], update + 1
    beta1, beta2 = settings.betas
    found = {
        "mean": 1 / examples,
        "rate": rate,
        "momentum": settings.momentum,
        "gain": 1 - settings.dampening if update else 1.0,
        "first": (beta1, 1 - beta1),
        "second": (beta2, 1 - beta2),
        "unbias": 1 / math.sqrt(1 - beta2**t),
        "eps": settings.eps,
        "step": rate / (1 - beta1**t),
    }
    return found | decays(settings, rate) | clipping(problem)


def decays(settings: Any, rate: float) -> Numbers:
    """Return what decay adds to g, and leaves of w."""
    if settings.decoupled:
        return {
            "l2": 0.0,
            "decay": 1 - rate * settings.weight_decay,
        }
    return {"l2": settings.weight_decay, "decay": 1.0}


def clipping(problem: Problem) -> Numbers:
    """Return the norm to clip to, if there is one."""
    if problem.max_norm is None:
        return {}
    return {"max_norm": problem.max_norm}
