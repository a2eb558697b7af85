"""The learning rate of every update, made on the host."""

import math
from typing import Any

from .problem import Problem


def learning_rates(problem: Problem) -> list[float]:
    """Return one learning rate an update, never a micro-step.

    A library's schedule may count micro-steps instead, or
    be float32 whatever the parameters are: Keras's is both.
    """
    if problem.learning_rates is not None:
        return list(problem.learning_rates)
    return [
        problem.optimizer.learning_rate
        * factor(problem.schedule, update)
        for update in range(problem.updates)
    ]


def factor(schedule: Any, update: int) -> float:
    """Return what multiplies the peak, from update 0 on.

    A warm-up starts at 0: update 0 moves nothing. A decay
    ends at 0, and a run that is longer stays there.
    """
    if schedule is None:
        return 1.0
    if update < schedule.warmup:
        return update / schedule.warmup
    if schedule.decay == "constant":
        return 1.0
    if update >= schedule.updates:
        return 0.0
    decaying = schedule.updates - schedule.warmup
    progress = (update - schedule.warmup) / decaying
    if schedule.decay == "linear":
        return 1 - progress
    return (1 + math.cos(math.pi * progress)) / 2
