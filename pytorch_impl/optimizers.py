"""The library's own optimizer, set to take the update."""

from typing import Any

import torch
from torch.optim import Optimizer

from .data import Parameters


def make_optimizer(
    parameters: Parameters, problem: Any
) -> Optimizer:
    """Return torch.optim's SGD with the problem's settings.

    Raises NotImplementedError for other optimizers, weight
    decay, a schedule, and clipping.
    """
    settings = problem.optimizer
    if (
        settings.name != "sgd"
        or settings.weight_decay
        or problem.learning_rates is not None
        or problem.max_norm is not None
    ):
        raise NotImplementedError("plain SGD only")
    return torch.optim.SGD(
        parameters, settings.learning_rate, settings.momentum
    )
