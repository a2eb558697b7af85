"""The settings of a run's rule: as its state shows them, as they were recorded, or another's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lockstep.problem import Optimizer
from lockstep.problem.settings import OPTIMIZERS
from lockstep.trace.identify import Identified
from lockstep.trace.moments import SECONDS
from lockstep.trace.numbers import Number, agreed
from lockstep.trace.steps import Steps

# What recorders say of an optimizer, and what a setting is called here.
SETTINGS = {
    "betas": "betas", "eps": "eps", "epsilon": "eps", "momentum": "momentum", "alpha": "alpha",
    "nesterov": "nesterov", "amsgrad": "amsgrad", "centered": "centered", "rho": "rho",
    "dampening": "dampening", "lr_decay": "lr_decay", "momentum_decay": "momentum_decay",
    "initial_accumulator_value": "initial_accumulator_value",
}  # fmt: skip
# Settings that change the formula of an update, and are no state: a port is first held against
# those of the first run.
FORMULA = ("nesterov", "lr_decay", "momentum_decay")


def settings_of(run: Steps, read: Identified, other: Optimizer | None = None) -> Optimizer:
    """The settings of a run's rule: as the state shows them, as they were recorded, or the other's.

    What only the formula of an update shows is the other run's where it was not recorded, and an
    eps in any case: whether it is so is to be found out.
    """
    family = run.family
    given = group_of(run)
    known = {SETTINGS[k]: v for k, v in given.items() if k in SETTINGS}
    if family == "rmsprop" and "rho" in known:
        known["alpha"] = known.pop("rho")  # as Keras calls it
    if "beta_1" in given and "beta_2" in given:
        known["betas"] = given["beta_1"], given["beta_2"]
    if other is not None and other.name == family:
        # What was recorded is the run's own; but an eps shows in the updates alone.
        like = {name: getattr(other, name) for name in OPTIMIZERS[family] if name in FORMULA}
        known = like | known | ({"eps": other.eps} if other.eps else {})
    first, second = (
        agreed([each.decay for each in averages if each.fit.exact])
        for averages in (read.averages, read.squares)
    )
    base = Optimizer(family)
    betas = tuple(known.get("betas", other.betas if other and other.name == family else base.betas))
    if family in ("adam", "adamax"):
        known["betas"] = decay_of(betas[0], first), decay_of(betas[1], second)
    elif family == "lion":
        known["betas"] = betas[0], decay_of(betas[1], first)
    elif family in SECONDS:
        name = SECONDS[family]
        known[name] = decay_of(known.get(name, getattr(base, name)), second)
    if "momentum_buffer" in run.slots:
        given_momentum = known.get("momentum") or (other.momentum if other else 0.0)
        read_off = first if family == "sgd" else run.momentum
        known["momentum"] = max(decay_of(given_momentum, read_off, 1.0), 1e-6)
    else:
        known |= {"momentum": 0.0, "nesterov": False}
    known["amsgrad"] = "max_exp_avg_sq" in run.slots
    known["centered"] = "grad_avg" in run.slots
    return Optimizer(family, **settings_that(family, known))


def group_of(run: Steps) -> dict[str, Any]:
    """The first group of settings that was recorded of what is looked at."""
    names = {name for _, name in run.of}
    groups = (each for each in run.trace.groups if names & {*each.get("parameters", names)})
    return next(groups, {})


def decay_of(given: float, read: Number | None, most: float = 1 - 1e-9) -> float:
    """The decay of an average: the number that was set, unless another one was read off."""
    if read is None or read.equals(given):
        return given
    return min(max(read.short, 0.0), most)


def settings_that(family: str, known: Mapping[str, Any]) -> dict[str, Any]:
    """Those settings that an optimizer has; dampening shows in the state, and is no part of it."""
    have = OPTIMIZERS[family]
    return {
        name: value
        for name, value in known.items()
        if name in have and value is not None and name not in ("dampening", "weight_decay")
    }
