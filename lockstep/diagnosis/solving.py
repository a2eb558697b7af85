"""A number of a port that is another one, solved for from the first update that is wrong."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from fractions import Fraction
from functools import partial
from itertools import islice
from typing import Any

import numpy as np

from lockstep.diagnosis.forms import Form, described
from lockstep.diagnosis.replay import FAILURES, in_floats, merged
from lockstep.oracle import loop
from lockstep.oracle.loop import Number, Place, Stages, Theta
from lockstep.problem import Array, Problem

# Settings that are numbers; the betas are two.
NUMBERS = (
    *("momentum", "dampening", "weight_decay", "eps", "alpha", "rho"),
    *("lr_decay", "momentum_decay", "initial_accumulator_value", "beta1", "beta2", "max_norm"),
)
# Relative to the largest parameter: what is off at all, and what is solved.
ROUNDING, SOLVED = 1e-9, 1e-13
# The secant method: its first step in the logarithm of a number, how far it goes, for how long.
STEP, FARTHEST, ROUNDS = 0.01, 20.0, 60


def solved(
    known: Stages, problem: Problem, trajectory: Sequence[Array]
) -> Iterator[tuple[Form, Form]]:
    """The forms in which one number is another, so that the first wrong update is right.

    Each to three digits, as a person would have written it, and as it was found.
    """
    place = first_wrong(known, problem, trajectory)
    if place is None:
        return
    for unknown in unknowns(problem):

        def wrong(step: float, unknown: Callable[..., Form] = unknown) -> float:
            return off(unknown(step), known, problem, trajectory, place)

        step = root(wrong)
        if step is not None:
            yield unknown(step, 3), unknown(step)


def unknowns(problem: Problem) -> Iterator[Callable[..., Form]]:
    """The numbers to solve for, each as the form that a step in its logarithm makes."""
    yield gradient_times
    yield rate_times
    for name in NUMBERS:
        old = value_of(problem, name)
        if old:
            yield partial(number_is, name=name, old=old, optimizer=problem.optimizer.name)


def gradient_times(step: float, digits: int = 17) -> Form:
    """Every gradient times a factor."""
    factor = rounded(math.exp(step), digits)

    def normalise(accumulator: Theta, at: Place) -> Theta:
        return accumulator * at.number(factor)

    words = f"times {in_words(factor)}"
    return described(f"gradient {words}", f"The gradient is taken {words}", normalise=normalise)


def rate_times(step: float, digits: int = 17) -> Form:
    """Every learning rate times a factor."""
    factor = rounded(math.exp(step), digits)

    def learning_rate(at: Place) -> Number:
        return type(rate)(factor) * rate if (rate := loop.learning_rate(at)) else rate

    words = f"times {in_words(factor)}"
    title = f"The learning rate is taken {words}"
    return described(f"learning rate {words}", title, learning_rate=learning_rate)


def number_is(step: float, digits: int = 17, *, name: str, old: float, optimizer: str) -> Form:
    """A setting has another value, of a β by what it is less than 1."""
    new = 1 - (1 - old) * math.exp(step) if name.startswith("beta") else old * math.exp(step)
    new = rounded(new, digits)
    words = f"{name} is {new:g} instead of {old:g}"
    change = partial(with_value, name=name, value=new, optimizer=optimizer)
    return described(words, f"The setting {words}", settings=change)


def in_words(factor: float) -> str:
    """A factor as the fraction that it is, or as the number."""
    fraction = Fraction(factor).limit_denominator(64)
    return str(fraction) if abs(fraction / Fraction(factor) - 1) < ROUNDING else f"{factor:.9g}"


def value_of(problem: Problem, name: str) -> float | None:
    """A setting of a problem or of its optimizer; None where it has none."""
    if name.startswith("beta"):
        betas = problem.optimizer.betas
        return betas[int(name[-1]) - 1] if betas else None
    value: Any = problem.max_norm if name == "max_norm" else getattr(problem.optimizer, name)
    return value


def with_value(problem: Problem, name: str, value: float, optimizer: str) -> Problem:
    """A problem with another value of a setting, which a clip or an optimizer may not have."""
    if name == "max_norm":
        return replace(problem, max_norm=value) if problem.max_norm is not None else problem
    if problem.optimizer.name != optimizer or not value_of(problem, name):
        return problem
    change: dict[str, Any] = {name: value}
    if name.startswith("beta"):
        first, second = problem.optimizer.betas
        change = {"betas": (value, second) if name == "beta1" else (first, value)}
    return replace(problem, optimizer=replace(problem.optimizer, **change))


def rounded(number: float, digits: int) -> float:
    """A number to so many significant digits."""
    return float(f"{number:.{digits}g}")


def first_wrong(
    known: Stages, problem: Problem, trajectory: Sequence[Array]
) -> tuple[int, int] | None:
    """The first update that is off, and its number that is most so."""
    for update, (found, actual) in enumerate(
        zip(replayed(known, problem), trajectory, strict=False)
    ):
        difference = abs(found - actual)
        if not np.isfinite(difference).all():
            return None
        if difference.max() > ROUNDING * abs(actual).max():
            return update, int(difference.argmax())
    return None


def replayed(stages: Stages, problem: Problem) -> Iterator[Array]:
    """W above b after each update, in float64, until it fails."""
    try:
        yield from in_floats(problem, stages)
    except FAILURES:
        return


def off(
    form: Form, known: Stages, problem: Problem, trajectory: Sequence[Array], place: tuple[int, int]
) -> float:
    """How far a number is off with one form more; NaN where there is none."""
    stages, (update, index) = merged(known, form.stages), place
    found = list(islice(replayed(stages, problem), update + 1)) if stages else []
    if len(found) <= update:
        return math.nan
    size = abs(trajectory[update]).max()
    return float((found[update].flat[index] - trajectory[update].flat[index]) / size)


def root(function: Callable[[float], float]) -> float | None:
    """The secant method from 0; None where it goes astray."""
    before, step = 0.0, STEP
    last, now = function(before), function(step)
    for _ in range(ROUNDS):
        if abs(now) <= SOLVED:
            return step
        if not math.isfinite(now) or now == last or abs(step) > FARTHEST:
            return None
        move = -now * (step - before) / (now - last)
        before, last = step, now
        step += max(-1.0, min(1.0, move))
        now = function(step)
    return None
