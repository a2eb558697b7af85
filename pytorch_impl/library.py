"""The library's own optimizers, set to take the update.

The agreed update is torch.optim's, so that the settings are
its own; only what it lacks stands in adapted.py.
"""

from typing import Any

from torch import optim
from torch.optim import Optimizer

from .adapted import Lion, NAdam

Groups = list[dict[str, Any]]


def sgd(groups: Groups, settings: Any) -> Optimizer:
    """Return SGD, with or without momentum."""
    return optim.SGD(
        groups,
        momentum=settings.momentum,
        dampening=settings.dampening,
        nesterov=settings.nesterov,
    )


def adam(groups: Groups, settings: Any) -> Optimizer:
    """Return Adam, AdamW or AMSGrad."""
    rule = optim.AdamW if settings.decoupled else optim.Adam
    return rule(
        groups,
        betas=settings.betas,
        eps=settings.eps,
        amsgrad=settings.amsgrad,
    )


def adamax(groups: Groups, settings: Any) -> Optimizer:
    """Return Adamax."""
    return optim.Adamax(
        groups, betas=settings.betas, eps=settings.eps
    )


def nadam(groups: Groups, settings: Any) -> Optimizer:
    """Return NAdam."""
    return NAdam(
        groups,
        betas=settings.betas,
        eps=settings.eps,
        momentum_decay=settings.momentum_decay,
    )


def rmsprop(groups: Groups, settings: Any) -> Optimizer:
    """Return RMSprop, plain, with momentum, or centered."""
    return optim.RMSprop(
        groups,
        alpha=settings.alpha,
        eps=settings.eps,
        momentum=settings.momentum,
        centered=settings.centered,
    )


def adagrad(groups: Groups, settings: Any) -> Optimizer:
    """Return Adagrad."""
    start = settings.initial_accumulator_value
    return optim.Adagrad(
        groups,
        lr_decay=settings.lr_decay,
        initial_accumulator_value=start,
        eps=settings.eps,
    )


def adadelta(groups: Groups, settings: Any) -> Optimizer:
    """Return Adadelta."""
    return optim.Adadelta(
        groups, rho=settings.rho, eps=settings.eps
    )


def lion(groups: Groups, settings: Any) -> Optimizer:
    """Return Lion, which torch.optim lacks."""
    return Lion(groups, betas=settings.betas)
