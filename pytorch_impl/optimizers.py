"""The library's own optimizer, set to take the update.

The agreed update is torch.optim's, so that the settings are
its own; only what it lacks stands in adapted.py. `groups`
are parameter groups, `s` the settings in PyTorch's names.
"""

from typing import Any

from torch import optim
from torch.optim import Optimizer

from .adapted import Lion, NAdam
from .data import Parameters

Groups = list[dict[str, Any]]


def sgd(groups: Groups, s: Any) -> Optimizer:
    """Return SGD, with or without momentum."""
    return optim.SGD(
        groups,
        momentum=s.momentum,
        dampening=s.dampening,
        nesterov=s.nesterov,
    )


def adam(groups: Groups, s: Any) -> Optimizer:
    """Return Adam, AdamW or AMSGrad."""
    rule = optim.AdamW if s.decoupled else optim.Adam
    return rule(
        groups, betas=s.betas, eps=s.eps, amsgrad=s.amsgrad
    )


adamw = adam


def adamax(groups: Groups, s: Any) -> Optimizer:
    """Return Adamax."""
    return optim.Adamax(groups, betas=s.betas, eps=s.eps)


def nadam(groups: Groups, s: Any) -> Optimizer:
    """Return NAdam."""
    return NAdam(
        groups,
        betas=s.betas,
        eps=s.eps,
        momentum_decay=s.momentum_decay,
    )


def rmsprop(groups: Groups, s: Any) -> Optimizer:
    """Return RMSprop, plain, with momentum, or centered."""
    return optim.RMSprop(
        groups,
        alpha=s.alpha,
        eps=s.eps,
        momentum=s.momentum,
        centered=s.centered,
    )


def adagrad(groups: Groups, s: Any) -> Optimizer:
    """Return Adagrad."""
    return optim.Adagrad(
        groups,
        lr_decay=s.lr_decay,
        initial_accumulator_value=s.initial_accumulator_value,
        eps=s.eps,
    )


def adadelta(groups: Groups, s: Any) -> Optimizer:
    """Return Adadelta."""
    return optim.Adadelta(groups, rho=s.rho, eps=s.eps)


def lion(groups: Groups, s: Any) -> Optimizer:
    """Return Lion, which torch.optim lacks."""
    return Lion(groups, betas=s.betas)


def make_optimizer(
    parameters: Parameters, problem: Any
) -> Optimizer:
    """Return the problem's optimizer, for W and b alone."""
    s = problem.optimizer
    decays = [True, problem.decay_bias]
    groups = [
        {
            "params": [p],
            "lr": s.learning_rate,
            "weight_decay": decay * s.weight_decay,
        }
        for p, decay in zip(parameters, decays, strict=True)
    ]
    return globals()[s.name](groups, s)
