"""An update's settings, under `torch.optim`'s names and with its meaning; bad ones are refused.

All three frameworks train with these objects, so that a setting that makes no sense gets the same
error, from this one place, whichever framework it was meant for.
"""

from __future__ import annotations

import math
import reprlib
from dataclasses import dataclass, fields
from numbers import Integral, Real
from typing import Any

import numpy as np


class ProblemError(ValueError):
    """A problem that cannot be trained on; the message says what is wrong, and where."""


def require(condition: bool, message: str) -> None:
    """Raise ProblemError(message) unless the condition holds."""
    if not condition:
        raise ProblemError(message)


def shown(value: Any) -> str:
    """A value as a message shows it: in one line, however long or deep it is."""
    return reprlib.repr(value)


def require_count(name: str, value: Any, least: int = 1) -> None:
    """Raise ProblemError unless the value is a whole number of at least `least`."""
    require(
        isinstance(value, Integral) and not isinstance(value, bool) and int(value) >= least,
        f"{name}: {shown(value)} must be a whole number of at least {least}",
    )


# What each optimizer of torch.optim takes, with its defaults (a test reads them there); Lion,
# which torch.optim lacks, as its paper has it: https://arxiv.org/abs/2302.06675
ADAM: dict[str, Any] = {
    "learning_rate": 1e-3, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.0,
}  # fmt: skip
OPTIMIZERS: dict[str, dict[str, Any]] = {
    "sgd": {
        "learning_rate": 1e-3, "momentum": 0.0, "dampening": 0.0, "nesterov": False,
        "weight_decay": 0.0,
    },
    "adam": ADAM | {"amsgrad": False},
    "adamw": ADAM | {"amsgrad": False, "weight_decay": 1e-2},
    "adamax": ADAM | {"learning_rate": 2e-3},
    "nadam": ADAM | {"learning_rate": 2e-3, "momentum_decay": 4e-3},
    "rmsprop": {
        "learning_rate": 1e-2, "alpha": 0.99, "eps": 1e-8, "weight_decay": 0.0, "momentum": 0.0,
        "centered": False,
    },
    "adagrad": {
        "learning_rate": 1e-2, "lr_decay": 0.0, "weight_decay": 0.0,
        "initial_accumulator_value": 0.0, "eps": 1e-10,
    },
    "adadelta": {"learning_rate": 1.0, "rho": 0.9, "eps": 1e-6, "weight_decay": 0.0},
    "lion": {"learning_rate": 1e-4, "betas": (0.9, 0.99), "weight_decay": 0.0},
}  # fmt: skip
# Decoupled from the gradient: the parameters shrink by rate * weight_decay. In all others weight
# decay is coupled: weight_decay * parameter is added to the gradient.
DECOUPLED = ("adamw", "lion")

# What a setting is where an optimizer has no such thing.
ABSENT: dict[str, Any] = {
    "momentum": 0.0, "dampening": 0.0, "nesterov": False, "betas": (0.0, 0.0), "eps": 0.0,
    "amsgrad": False, "momentum_decay": 0.0, "alpha": 0.0, "centered": False, "lr_decay": 0.0,
    "initial_accumulator_value": 0.0, "rho": 0.0,
}  # fmt: skip
FRACTIONS = ("alpha", "rho", "dampening")

# Filled in with the default of torch.optim's optimizer of that name.
DEFAULT: Any = None


@dataclass(frozen=True)
class Optimizer:
    """An optimizer's name and settings; what is not given is `torch.optim`'s default.

    Rules: https://docs.pytorch.org/docs/stable/optim.html, and for lion, with decoupled decay,
    https://arxiv.org/abs/2302.06675. `momentum` 1 is allowed: it is what not zeroing does.

    Raises ProblemError for an unknown name, for a setting outside its range, and for one that the
    optimizer does not have.
    """

    name: str = "sgd"
    learning_rate: float = DEFAULT
    momentum: float = DEFAULT
    betas: tuple[float, float] = DEFAULT
    eps: float = DEFAULT
    weight_decay: float = DEFAULT
    dampening: float = DEFAULT
    nesterov: bool = DEFAULT
    amsgrad: bool = DEFAULT
    momentum_decay: float = DEFAULT
    alpha: float = DEFAULT
    centered: bool = DEFAULT
    lr_decay: float = DEFAULT
    initial_accumulator_value: float = DEFAULT
    rho: float = DEFAULT

    def __post_init__(self) -> None:
        require(
            isinstance(self.name, str) and self.name in OPTIMIZERS,
            f"optimizer.name: {shown(self.name)} is unknown, it must be one of"
            f" {', '.join(OPTIMIZERS)}",
        )
        settings = OPTIMIZERS[self.name]
        for name in (field.name for field in fields(self) if field.name != "name"):
            if getattr(self, name) is DEFAULT:
                object.__setattr__(self, name, settings.get(name, ABSENT.get(name)))
            else:
                self._check(name, getattr(self, name), name in settings)
        require(
            not self.nesterov or (self.momentum > 0 and self.dampening == 0),
            "optimizer.nesterov: needs a momentum above 0 and no dampening",
        )
        require(
            not self.dampening or self.momentum > 0, "optimizer.dampening: needs a momentum above 0"
        )

    def _check(self, name: str, value: Any, known: bool) -> None:
        """Refuse a value outside its range, and any that the optimizer has no use for."""
        where = f"optimizer.{name}: {shown(value)}"
        if name == "betas":
            pair = isinstance(value, tuple | list | np.ndarray) and len(value) == 2
            require(
                pair and all(is_number(beta) and 0 <= beta < 1 for beta in value),
                f"{where} must be two numbers in [0, 1)",
            )
            object.__setattr__(self, name, tuple(map(float, value)))
        elif isinstance(ABSENT.get(name), bool):
            require(isinstance(value, bool), f"{where} must be True or False")
        else:
            require(
                is_number(value) and value >= 0, f"{where} must be a finite number of at least 0"
            )
            require(name not in FRACTIONS or value < 1, f"{where} must be in [0, 1)")
            require(name != "momentum" or value <= 1, f"{where} must be in [0, 1]")
            object.__setattr__(self, name, float(value))
        require(
            known or getattr(self, name) == ABSENT.get(name),
            f"{where} is not a setting of {self.name}, which has"
            f" {', '.join(OPTIMIZERS[self.name])}",
        )

    @property
    def decoupled(self) -> bool:
        """Whether weight decay shrinks the parameters, instead of adding to their gradient."""
        return self.name in DECOUPLED


def is_number(value: Any) -> bool:
    """Whether it is a finite real number that a float can hold, and not True or False."""
    if not isinstance(value, Real) or isinstance(value, bool):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # 10**400
        return False


DECAYS = ("constant", "linear", "cosine")


@dataclass(frozen=True)
class Schedule:
    """A learning rate that warms up and decays, counted in updates.

    With peak the optimizer's learning rate, update u = 0, 1, ... has peak * u / warmup while
    u < warmup, and then, with p = (u - warmup) / (updates - warmup), peak ("constant"),
    peak * (1 - p) ("linear") or peak * (1 + cos(pi p)) / 2 ("cosine"). These are
    `get_linear_schedule_with_warmup` and `get_cosine_schedule_with_warmup` of Transformers. A run
    may be longer: where a decay has ended, the rate stays 0 (a cosine of Transformers rises again).

    Raises ProblemError for an unknown decay and for a warm-up longer than the schedule.
    """

    updates: int
    warmup: int = 0
    decay: str = "linear"

    def __post_init__(self) -> None:
        for name, least in (("updates", 1), ("warmup", 0)):
            require_count(f"schedule.{name}", getattr(self, name), least)
            object.__setattr__(self, name, int(getattr(self, name)))
        require(
            self.decay in DECAYS,
            f"schedule.decay: {shown(self.decay)} must be one of {', '.join(DECAYS)}",
        )
        require(
            self.warmup <= self.updates,
            f"schedule.warmup: {self.warmup} is longer than the schedule's {self.updates} updates",
        )


@dataclass(frozen=True)
class LossScale:
    """A dynamic loss scale, as `torch.amp.GradScaler` has it, with factors 2 and 1/2.

    The loss is multiplied by the scale, and the accumulated gradient divided by it, before
    clipping. A window whose gradient is not finite halves the scale; `growth_interval` updates
    in a row double it.

    Raises ProblemError where the scale is no power of two, and so would round.
    """

    initial: float = 2.0**16
    growth_interval: int = 2000

    def __post_init__(self) -> None:
        require(
            is_number(self.initial)
            and 0 < self.initial <= 2.0**127
            and math.frexp(self.initial)[0] == 0.5,
            f"loss_scale.initial: {shown(self.initial)} must be a power of two, up to 2^127",
        )
        require_count("loss_scale.growth_interval", self.growth_interval)
        object.__setattr__(self, "initial", float(self.initial))
        object.__setattr__(self, "growth_interval", int(self.growth_interval))
