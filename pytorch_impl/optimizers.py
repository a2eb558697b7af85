"""The library's own optimizer, set to take the update."""

from typing import Any

import torch
from torch.optim import Optimizer

from .data import Parameters


def require_plain_sgd(problem: Any) -> None:
    """Refuse decay, a schedule, clipping, another rule."""
    plain = (
        problem.optimizer.name == "sgd"
        and problem.optimizer.weight_decay == 0
        and problem.learning_rates is None
        and problem.max_norm is None
    )
    if not plain:
        raise NotImplementedError("SGD at one rate only")


def make_optimizer(
    parameters: Parameters, problem: Any
) -> Optimizer:
    """Return torch.optim's SGD with the problem's settings.

    Raises NotImplementedError unless it is plain SGD.
    """
    require_plain_sgd(problem)
    settings = problem.optimizer
    return torch.optim.SGD(
        parameters, settings.learning_rate, settings.momentum
    )
