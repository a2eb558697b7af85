"""The numbers of one update, made on the host in float64."""

import math
from collections.abc import Sequence
from typing import Any

Numbers = dict[str, Any]


def constants(
    problem: Any,
    rates: Sequence[float],
    update: int,
    examples: int,
) -> Numbers:
    """Return what an update, from 0, multiplies and adds."""
    s, rate, t = problem.optimizer, rates[update], update + 1
    beta1, beta2 = s.betas
    numbers = {
        "mean": 1 / examples,
        "rate": rate,
        "momentum": s.momentum,
        "gain": 1 - s.dampening if update else 1.0,
        "first": (beta1, 1 - beta1),
        "second": (beta2, 1 - beta2),
        "unbias": 1 / math.sqrt(1 - beta2**t),
        "eps": s.eps,
        "step": rate / (1 - beta1**t),
    }
    return numbers | decays(s, rate) | clipping(problem)


def decays(s: Any, rate: float) -> Numbers:
    """Return what decay adds to g, and leaves of w."""
    if s.decoupled:
        return {"l2": 0.0, "decay": 1 - rate * s.weight_decay}
    return {"l2": s.weight_decay, "decay": 1.0}


def clipping(problem: Any) -> Numbers:
    """Return the norm to clip to, if there is one."""
    if problem.max_norm is None:
        return {}
    return {"max_norm": problem.max_norm}
