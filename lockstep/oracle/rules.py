"""The oracle's optimizers: the rules of `torch.optim`, in NumPy, on any kind of number.

A rule takes W above b, its gradient, the optimizer's state under torch.optim's names, and the
numbers of the update, and returns W above b and the state one update later. The numbers are made
once, on the host: multiplying by a constant rounds alike everywhere, dividing by one does not.
sqrt(v) stands as v (1 / sqrt(v)) where a bitwise form exists, since 1 / sqrt(v) is what every
framework has of IEEE's. Sources: https://docs.pytorch.org/docs/stable/optim.html, and for lion
https://arxiv.org/abs/2302.06675.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any

import numpy as np

from lockstep.problem import Array
from lockstep.problem.settings import Optimizer

Number = Any  # float, Fraction, Decimal or Rounded
State = dict[str, Array]
Constants = dict[str, Any]
Step = tuple[Array, State]


def constants(
    settings: Optimizer, rate: Number, update: int, decays: Sequence[bool], dtype: Any
) -> Constants:
    """What update 0, 1, ... multiplies with and adds, as numbers of the learning rate's type.

    decays: for each row of W above b, whether weight decay acts on it.
    """
    number, t = type(rate), update + 1
    beta1, beta2 = map(number, settings.betas)
    weight_decay = number(settings.weight_decay)

    def column(decayed: Number, other: Number) -> Array:
        return np.array([[decayed if each else other] for each in decays], dtype=dtype)

    return {
        "rate": rate,
        "l2": column(number(0) if settings.decoupled else weight_decay, number(0)),
        "decay": column(1 - rate * weight_decay if settings.decoupled else number(1), number(1)),
        "momentum": number(settings.momentum),
        "gain": number(1) if update == 0 else 1 - number(settings.dampening),
        "first": (beta1, 1 - beta1),
        "second": (beta2, 1 - beta2),
        "unbias": 1 / square_root(1 - beta2**t),
        "step": rate / (1 - beta1**t),
        "eps": number(settings.eps),
        "average": (number(settings.alpha), 1 - number(settings.alpha)),
        "delta": (number(settings.rho), 1 - number(settings.rho)),
        "decayed_rate": rate / (1 + update * number(settings.lr_decay)),
        "mu": [nadam_momentum(settings, beta1, step) for step in (t, t + 1)],
    }


def nadam_momentum(settings: Optimizer, beta1: Number, t: int) -> Number:
    """The momentum of NAdam's update t = 1, 2, ...; 0 for the others."""
    if settings.name != "nadam":
        return type(beta1)(0)
    number = type(beta1)
    return beta1 * (1 - number(0.5) * number(0.96) ** (t * number(settings.momentum_decay)))


def square_root(x: Number) -> Number:
    """The square root in the number's own precision; a float's is a host scalar."""
    return x.sqrt() if hasattr(x, "sqrt") else math.sqrt(x)


def root(v: Array) -> Array:
    """sqrt(v), of floats as v (1 / sqrt(v)).

    That form is above the smallest normal number, so that v = 0 gives 0.
    """
    if v.dtype == object:
        return sqrt(v)
    return v * (1 / np.sqrt(np.maximum(v, np.finfo(v.dtype).tiny)))


def sqrt(x: Array) -> Array:
    """The square root; a decimal that a difference quotient has moved below 0 counts as 0."""
    if x.dtype == object and isinstance(x.flat[0], Decimal):
        x = np.frompyfunc(lambda number: max(number, Decimal(0)), 1, 1)(x)
    return np.sqrt(x)


def sign(x: Array) -> Array:
    """-1, 0 or 1."""
    return np.sign(x) if x.dtype != object else np.frompyfunc(sign_of, 1, 1)(x)


def sign_of(x: Number) -> Number:
    """The sign of one number, by its own method where it has one."""
    return x.sign() if hasattr(x, "sign") else type(x)((x > 0) - (x < 0))


def average(moment: Array, new: Array, betas: tuple[Number, Number]) -> Array:
    """An exponential moving average."""
    beta, gain = betas
    mixed = moment * beta + new * gain
    if hasattr(mixed, "averaged"):  # numbers that carry errors know what other forms round
        return mixed.averaged(moment, new)
    if hasattr(beta, "averaged"):
        return np.frompyfunc(lambda n, m, g: n.averaged(m, g), 3, 1)(mixed, moment, new)
    return mixed


def sgd(
    theta: Array, gradient: Array, state: State, numbers: Constants, settings: Optimizer
) -> Step:
    """Momentum in buffer form: the learning rate stays outside. Dampening spares update 1."""
    gradient = gradient + theta * numbers["l2"]
    if not settings.momentum:
        return theta - gradient * numbers["rate"], {}
    buffer = state["momentum_buffer"] * numbers["momentum"] + gradient * numbers["gain"]
    direction = gradient + buffer * numbers["momentum"] if settings.nesterov else buffer
    return theta - direction * numbers["rate"], {"momentum_buffer": buffer}


def adam(
    theta: Array, gradient: Array, state: State, numbers: Constants, settings: Optimizer
) -> Step:
    """Adam, AdamW and AMSGrad, whose maximum is of the raw second moment."""
    gradient = gradient + theta * numbers["l2"]
    m = average(state["exp_avg"], gradient, numbers["first"])
    v = average(state["exp_avg_sq"], gradient * gradient, numbers["second"])
    new = {"exp_avg": m, "exp_avg_sq": v}
    if settings.amsgrad:
        v = new["max_exp_avg_sq"] = np.maximum(state["max_exp_avg_sq"], v)
    direction = m / (root(v) * numbers["unbias"] + numbers["eps"])
    return theta * numbers["decay"] - direction * numbers["step"], new


def adamax(
    theta: Array, gradient: Array, state: State, numbers: Constants, settings: Optimizer
) -> Step:
    """Adam with the infinity norm; eps goes into the maximum."""
    gradient = gradient + theta * numbers["l2"]
    m = average(state["exp_avg"], gradient, numbers["first"])
    norm = np.maximum(state["exp_inf"] * numbers["second"][0], abs(gradient) + numbers["eps"])
    return theta - (m / norm) * numbers["step"], {"exp_avg": m, "exp_inf": norm}


def nadam(
    theta: Array, gradient: Array, state: State, numbers: Constants, settings: Optimizer
) -> Step:
    """Adam with Nesterov's momentum, which grows towards beta1."""
    gradient = gradient + theta * numbers["l2"]
    mu, next_mu = numbers["mu"]
    product = state["mu_product"] * mu
    m = average(state["exp_avg"], gradient, numbers["first"])
    v = average(state["exp_avg_sq"], gradient * gradient, numbers["second"])
    denominator = root(v) * numbers["unbias"] + numbers["eps"]
    now = gradient / denominator * (numbers["rate"] * (1 - mu)) / (1 - product)
    ahead = m / denominator * (numbers["rate"] * next_mu) / (1 - product * next_mu)
    return theta - now - ahead, {"exp_avg": m, "exp_avg_sq": v, "mu_product": product}


def rmsprop(
    theta: Array, gradient: Array, state: State, numbers: Constants, settings: Optimizer
) -> Step:
    """With eps outside the root, and momentum in buffer form."""
    gradient = gradient + theta * numbers["l2"]
    v = average(state["square_avg"], gradient * gradient, numbers["average"])
    new, variance = {"square_avg": v}, v
    if settings.centered:
        mean = new["grad_avg"] = average(state["grad_avg"], gradient, numbers["average"])
        variance = v - mean * mean
    direction = gradient / (sqrt(variance) + numbers["eps"])
    if settings.momentum:
        direction = new["momentum_buffer"] = (
            state["momentum_buffer"] * numbers["momentum"] + direction
        )
    return theta - direction * numbers["rate"], new


def adagrad(
    theta: Array, gradient: Array, state: State, numbers: Constants, settings: Optimizer
) -> Step:
    """With eps outside the root."""
    gradient = gradient + theta * numbers["l2"]
    total = state["sum"] + gradient * gradient
    direction = gradient / (sqrt(total) + numbers["eps"])
    return theta - direction * numbers["decayed_rate"], {"sum": total}


def adadelta(
    theta: Array, gradient: Array, state: State, numbers: Constants, settings: Optimizer
) -> Step:
    """With eps inside both roots."""
    gradient = gradient + theta * numbers["l2"]
    v = average(state["square_avg"], gradient * gradient, numbers["delta"])
    delta = sqrt(state["acc_delta"] + numbers["eps"]) / sqrt(v + numbers["eps"]) * gradient
    deltas = average(state["acc_delta"], delta * delta, numbers["delta"])
    return theta - delta * numbers["rate"], {"square_avg": v, "acc_delta": deltas}


def lion(
    theta: Array, gradient: Array, state: State, numbers: Constants, settings: Optimizer
) -> Step:
    """The sign of an interpolation; the moment keeps another one."""
    direction = sign(average(state["exp_avg"], gradient, numbers["first"]))
    m = average(state["exp_avg"], gradient, numbers["second"])
    return theta * numbers["decay"] - direction * numbers["rate"], {"exp_avg": m}


RULES: dict[str, Callable[[Array, Array, State, Constants, Optimizer], Step]] = {
    "sgd": sgd,
    "adam": adam,
    "adamw": adam,
    "adamax": adamax,
    "nadam": nadam,
    "rmsprop": rmsprop,
    "adagrad": adagrad,
    "adadelta": adadelta,
    "lion": lion,
}
# Fractions hold what these compute.
ALGEBRAIC = ("sgd", "lion")


def initial_state(settings: Optimizer, zeros: Array) -> State:
    """What the optimizer starts from, under torch.optim's names, one number a parameter."""
    names = {
        "sgd": ["momentum_buffer"] if settings.momentum else [],
        "adam": ["exp_avg", "exp_avg_sq"] + ["max_exp_avg_sq"] * settings.amsgrad,
        "adamax": ["exp_avg", "exp_inf"],
        "nadam": ["exp_avg", "exp_avg_sq", "mu_product"],
        "rmsprop": ["square_avg"]
        + ["grad_avg"] * settings.centered
        + ["momentum_buffer"] * bool(settings.momentum),
        "adagrad": ["sum"],
        "adadelta": ["square_avg", "acc_delta"],
        "lion": ["exp_avg"],
    }["adam" if settings.name == "adamw" else settings.name]
    start = {"mu_product": 1.0, "sum": settings.initial_accumulator_value}
    number = type(zeros.flat[0])
    return {name: zeros + number(start.get(name, 0.0)) for name in names}


def uses_square_root(settings: Optimizer) -> bool:
    """Whether the rule takes a square root, which fractions do not have."""
    return settings.name not in ALGEBRAIC
