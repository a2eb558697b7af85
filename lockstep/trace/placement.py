"""State that a library keeps otherwise than torch.optim does: in another unit, or as another's."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np

from lockstep.problem import Optimizer
from lockstep.trace.identify import Average, Identified, decayed, linear, over
from lockstep.trace.numbers import Fit, Number, agreed, fit, unit
from lockstep.trace.reading import Array
from lockstep.trace.steps import Step, Steps

# How near the gain of a momentum is to minus the rate, if it has that in it.
NEAR = 1e-3
# What the second moment of Adamax may be off, by its eps, beside its first one.
OFF = 1e-3
# By what libraries keep their roots from 0, where it was not recorded.
USUAL = (1e-8, 1e-7)
BUFFER = "momentum_buffer"
Gains = dict[tuple[int, str], float]


def as_torch_keeps(run: Steps) -> Steps:
    """The same run, with its state as torch.optim keeps it.

    Each update is then the same from the state that it began with, whatever the rates before it.
    """
    if is_adamax(run):
        names = {"exp_avg_sq": "exp_inf"}
        run = replace(run, of={key: renamed(step, names) for key, step in run.of.items()})
    if run.family == "adamax" and run.trace.framework == "keras":
        return with_eps(run)
    if BUFFER not in run.slots:
        return run
    if run.family == "sgd":
        return without_rate(run, gains_of_sgd(run))
    if run.family == "rmsprop":
        found = averages_of_rmsprop(run)
        momentum = agreed([each.coefficients[0] for each in found.values()])
        gains = {key: each.coefficients[1].value for key, each in found.items()}
        one = all(each.coefficients[1].equals(1.0) for each in found.values())
        return replace(without_rate(run, {} if one else gains), momentum=momentum)
    return run


def is_adamax(run: Steps) -> bool:
    """Whether what is kept as Adam's is Adamax's: its second moment begins as large as its first.

    optax has one state for both.
    """
    if run.family != "adam":
        return False
    begun = [
        step
        for step in run.of.values()
        if "exp_avg_sq" in step.kept and not any(each.any() for each in step.kept_before.values())
    ]
    if not begun:
        return False
    first, second = (
        np.concatenate([abs(step.kept[slot]).ravel() for step in begun])
        for slot in ("exp_avg", "exp_avg_sq")
    )
    return bool(second.any()) and fit(second, [first], 0 * second).relative < OFF


def with_eps(run: Steps) -> Steps:
    """The same run of Keras' Adamax, whose eps is added to the norm where the rule divides by it.

    In torch.optim and optax it is in what is kept of the norm, of which beta2 is left an update on.
    """
    group: Mapping[str, Any] = next((g for g in run.trace.groups if g.get("epsilon")), {})
    eps, beta = float(group.get("epsilon", 0.0)), float(group.get("beta_2") or 1.0)

    def added(kept: Mapping[str, Array], more: float) -> Mapping[str, Array]:
        # Both begin at 0.
        return {name: a + more if name == "exp_inf" and a.any() else a for name, a in kept.items()}

    of = {
        key: replace(
            step, kept=added(step.kept, eps), kept_before=added(step.kept_before, eps / beta)
        )
        for key, step in run.of.items()
    }
    return replace(run, of=of)


def renamed(step: Step, names: Mapping[str, str]) -> Step:
    """A step whose state has other names."""
    before, after = (
        {names.get(slot, slot): array for slot, array in kept.items()}
        for kept in (step.kept_before, step.kept)
    )
    dtypes = {names.get(slot, slot): dtype for slot, dtype in step.dtypes.items()}
    return replace(step, kept_before=before, kept=after, dtypes=dtypes)


def without_rate(run: Steps, gains: Gains) -> Steps:
    """The same run, with the momentum in units of what enters it: all of it, times a gain."""
    if not gains:
        return run
    of = {key: divided(step, gains.get(key, 0.0)) for key, step in run.of.items()}
    return replace(run, of=of, rate_inside=True)


def divided(step: Step, by: float) -> Step:
    """A step with its momentum in another unit; without it, where that unit is nothing."""
    before, after = dict(step.kept_before), dict(step.kept)
    if by:
        before[BUFFER], after[BUFFER] = before[BUFFER] / by, after[BUFFER] / by
    else:
        del before[BUFFER], after[BUFFER]
    return replace(step, kept_before=before, kept=after)


def gains_of_sgd(run: Steps) -> Gains:
    """What the gradient enters a momentum with that has the rate in it; nothing where it has not.

    It has if that is minus the recorded rate, or if the momentum is what the parameter moves by.
    """
    averages = [each for each in Identified(run, Optimizer()).averages if each.fit.exact]
    if not averages:
        return {}
    facts = {each.number: each.facts.get("rates") or {} for each in run.trace.updates}
    rates = {key: facts[key[0]].get(key[1]) for key in run.of}
    inside = [
        rate is not None and each.gain.equals(Number(-float(rate), NEAR * abs(float(rate))))
        for each in averages
        for rate in [rates[each.step.update, each.step.name]]
    ]
    if all(inside):
        return {key: -float(rate or 0.0) for key, rate in rates.items()}
    if not all(moves_by_it(each) for each in run.of.values() if BUFFER in each.kept):
        return {}
    decay = agreed([each.decay for each in averages])
    return {(each.step.update, each.step.name): gain_of(each, decay).value for each in averages}


def gain_of(average: Average, decay: Number | None) -> Number:
    """What a gradient entered a momentum with; at its decay, where it has too few numbers."""
    step = average.step
    if math.isfinite(average.gain.error) or decay is None or step.gradient is None:
        return average.gain
    rest = step.kept[BUFFER] - decay.value * step.kept_before[BUFFER]
    return fit(rest, [step.gradient], abs(rest)).coefficients[0]


def moves_by_it(step: Step) -> bool:
    """Whether a parameter moved by its momentum, as it is."""
    moved = step.before + step.kept[BUFFER]
    bound = unit(step.dtype) * (abs(step.before) + abs(moved))
    return bool((abs(step.after - moved) <= bound).all())


def averages_of_rmsprop(run: Steps) -> dict[tuple[int, str], Fit]:
    """How RMSprop's momentum went on: decay * momentum + gain * direction; nothing if otherwise."""
    given = [g[n] for g in run.trace.groups for n in ("eps", "epsilon") if g.get(n)]
    known = Identified(run, Optimizer())
    for eps, inside in product((*given[:1], *USUAL), (False, True)):
        found = {}
        for key, clipped in known.gradients.items():
            step = run.of[key]
            if BUFFER not in step.kept:
                continue
            gradient, lost = decayed(known, step, *clipped)
            direction, off = scaled(step, gradient, float(eps), inside)
            off = off + over(lost, gradient) * abs(direction)
            columns = [step.kept_before[BUFFER], direction]
            found[key] = linear(step.kept[BUFFER], columns, 2, step.dtype, off)
        if found and all(each.exact for each in found.values()):
            return found
    return {}


def scaled(step: Step, gradient: Array, eps: float, inside: bool) -> tuple[Array, Array]:
    """The direction of RMSprop without its momentum, and what that may be off.

    inside: whether eps is inside of the root.
    """
    square = step.kept["square_avg"]
    mean = step.kept.get("grad_avg", np.zeros_like(square))
    variance = np.maximum(square - mean * mean, 0.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        below = np.sqrt(variance + eps) if inside else np.sqrt(variance) + eps
        direction = np.where(gradient == 0, 0.0, gradient / below)
        lost = (square + mean * mean) / np.maximum(variance, np.finfo(float).tiny)
    return direction, unit(step.dtype) * abs(direction) * (1 + lost)
