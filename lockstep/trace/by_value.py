"""A clip by value that nothing shows: what it left is read off the first update of a run.

What an optimizer keeps of its first gradient, or how far it goes, is that gradient's size but for
one factor. Of numbers that were clipped less is left, and of all of them the same.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from lockstep.trace.identify import FIRST, SECOND, TINY
from lockstep.trace.numbers import Number, unit
from lockstep.trace.reading import Array
from lockstep.trace.steps import Step, Steps

# By how many roundings the sizes of two numbers may differ that were made alike.
ROUNDINGS = 64
# Smaller numbers than this part of the largest say nothing, nor do those that are as uncertain.
SMALL, UNSURE = 1e-6, 1e-3
# In how many updates a clip is looked for.
FIRST_ONES = 16
# The rules that keep means, whose gain is what their decay leaves.
MEANS = ("adam", "adamax", "rmsprop", "adadelta")
# How uncertain one may be that is held against a limit.
KNOWN = 0.1
# Of how many numbers it must be known that they were clipped, and that they were not.
FEWEST = 3


class Left(NamedTuple):
    """Numbers of a gradient, their sizes in what a rule kept of them, and how far off these are."""

    gradient: Array
    size: Array
    error: Array


def clipped_by_value(steps: Steps, other: Steps | None = None) -> Steps:
    """The same steps, with what a clip by value left of their gradients, if one did.

    other: another run's, whose limit it may be, where nearly all numbers are clipped.
    """
    rounding = max((unit(step.dtype) for step in steps.of.values()), default=1.0)
    if steps.shows_clipped or not steps.numbers or ROUNDINGS * rounding > KNOWN:
        return steps
    limit = limit_read(steps, rounding)
    if limit is None and other is not None and (shown := limit_shown(other)):
        every = sizes(steps, steps.numbers[0])
        limit = shown if every is not None and made_with(every, shown, rounding) else None
    if limit is None:
        return steps
    clipped = {
        key: replace(step, clipped=np.clip(step.accumulated, -limit, limit))
        for key, step in steps.of.items()
        if step.accumulated is not None
    }
    return replace(steps, of={**steps.of, **clipped})


def limit_read(steps: Steps, rounding: float) -> float | None:
    """The limit, off the first update in which it acts; None where none is known to.

    In later ones, what a mean has of its gradient is what is left beside its decay.
    """
    decay = 0.0
    for number in steps.numbers[:FIRST_ONES]:
        every = sizes(steps, number, decay)
        if every is None:
            return None
        if (limit := limit_of(every, rounding)) is not None:
            return limit
        if not decay:
            factor = made_with(every, math.inf, rounding)
            if factor is None or steps.family not in MEANS:
                return None
            decay = 1 - factor if steps.family in FIRST else 1 - factor**2
    return None


def sizes(steps: Steps, number: int, decay: float = 0.0) -> Left | None:
    """What an update shows of its gradients' sizes; None where it shows nothing."""
    each = [left(step, steps.family, decay) for step in steps.at(number).values()]
    known = [one for one in each if one is not None]
    return Left(*map(np.concatenate, zip(*known, strict=True))) if known else None


def left(step: Step, family: str, decay: float) -> Left | None:
    """What an update shows of the sizes of a gradient's numbers; None where it does not.

    decay: of the mean that the gradient goes into.
    """
    if step.accumulated is None:
        return None
    first, second = FIRST.get(family, ""), SECOND.get(family, "sum")
    if first in step.kept:
        before = step.kept_before[first]
        if before.any() and not decay:
            return None
        size = abs(step.kept[first] - decay * before)
        error = unit(step.dtype_of(first)) * (abs(step.kept[first]) + decay * abs(before))
    elif second in step.kept:
        before = step.kept_before[second]
        begins = decay if family in MEANS else 1.0
        size = np.sqrt(np.maximum(step.kept[second] - begins * before, 0.0))
        rounding = unit(step.dtype_of(second)) * (step.kept[second] + begins * before)
        error = rounding / np.maximum(size, np.sqrt(rounding) + TINY)
    else:
        size = abs(step.after - step.before)
        error = unit(step.dtype) * (abs(step.after) + abs(step.before))
    return Left(*(np.ravel(array) for array in (abs(step.accumulated), size, error)))


def limit_of(every: Left, rounding: float) -> float | None:
    """The value to which numbers were clipped; None where that does not explain their sizes."""
    largest = every.gradient.max(initial=0.0)
    sure = (every.gradient > SMALL * largest) & (every.error < UNSURE * every.size)
    if not sure.any():
        return None
    gradient, size, error = (array[sure] for array in every)
    ratio, off = size / gradient, ROUNDINGS * rounding + error / size
    free = ratio * (1 + off) >= (ratio * (1 - off)).max()
    if min(free.sum(), (~free).sum()) < FEWEST:
        return None
    limit = float(np.median(size[~free]) / np.median(ratio[free]))
    error = limit * float(np.median(off[free]) + np.median(off[~free]))
    return Number(limit, error).short if made_with(every, limit, rounding) else None


def made_with(every: Left, limit: float, rounding: float) -> float | None:
    """The factor that explains all sizes, behind a clip to a value; None if none does."""
    clipped = np.minimum(every.gradient, limit)
    sure = (every.error < KNOWN * every.size) & (clipped > 0)
    if not sure.any():
        return None
    factor = float(np.median(every.size[sure] / clipped[sure]))
    bound = ROUNDINGS * rounding * factor * clipped + 2 * every.error
    return factor if (abs(every.size - factor * clipped) <= bound).all() else None


def limit_shown(steps: Steps) -> float | None:
    """To which value the numbers of a run are seen to be clipped; None if they are not."""
    each = [
        (step.accumulated, step.clipped)
        for step in steps.of.values()
        if step.accumulated is not None and step.clipped is not None
    ]
    limit = max((float(abs(clipped).max(initial=0.0)) for _, clipped in each), default=0.0)
    acts = any((clipped != whole).any() for whole, clipped in each)
    made = all((clipped == np.clip(whole, -limit, limit)).all() for whole, clipped in each)
    return limit if acts and made else None
