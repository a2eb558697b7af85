"""Optimizers that leave alone what got no gradient, as PyTorch's SparseAdam does with its rows.

A dense rule moves every number at every update: its averages fade, and what is left of them moves
it. Nothing of that happens to a row of an embedding that no token of the window has looked up, if
the rule is a lazy one. What a lazy tensor shows of its rule, it shows where it got a gradient.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from lockstep.trace.findings import Finding
from lockstep.trace.matching import Matching
from lockstep.trace.reading import Array
from lockstep.trace.steps import Step, Steps

NAME = "lazy rows"


class Still(NamedTuple):
    """Whether a tensor stands still without a gradient, and the first update that tells."""

    still: bool
    update: int


def lazy(steps: Steps) -> dict[str, Still]:
    """Which tensors stand still without a gradient, and which do not, where that is known."""
    found: dict[str, Still] = {}
    for (update, name), step in steps.of.items():
        still = stands_still(step)
        if still is not None:
            known = found.get(name, Still(True, update))
            found[name] = Still(known.still and still, min(known.update, update))
    return found


def stands_still(step: Step) -> bool | None:
    """Whether numbers without a gradient kept a state that would have faded; None if none can."""
    if step.gradient is None or not step.kept:
        return None
    asleep = (step.gradient == 0) & np.any(
        [each != 0 for each in step.kept_before.values()], axis=0
    )
    if not asleep.any() or not step.gradient.any():  # a whole tensor may be frozen
        return None
    return narrowed(step, asleep).stands


def awake(steps: Steps, known: Mapping[str, Still]) -> Steps:
    """The same steps, those of lazy tensors at the numbers alone that got a gradient."""
    of = {}
    for key, step in steps.of.items():
        if step.name not in known or not known[step.name].still or step.gradient is None:
            of[key] = step
        elif step.gradient.any():
            of[key] = narrowed(step, step.gradient != 0)
    return replace(steps, of=of)


def narrowed(step: Step, chosen: Array) -> Step:
    """A step, of these numbers of its tensor."""
    return replace(
        step,
        before=step.before[chosen],
        after=step.after[chosen],
        accumulated=None if step.accumulated is None else step.accumulated[chosen],
        clipped=None if step.clipped is None else step.clipped[chosen],
        kept_before={name: each[chosen] for name, each in step.kept_before.items()},
        kept={name: each[chosen] for name, each in step.kept.items()},
    )


def lazy_findings(
    mine: Mapping[str, Still], theirs: Mapping[str, Still], matching: Matching
) -> Iterator[Finding]:
    """Which tensors stand still in one of two runs."""
    for still, does, instead in (
        (True, "stands still", "moves on"),
        (False, "moves on", "stands still"),
    ):
        others = matching.others([name for name, own in mine.items() if own.still != still])
        names = tuple(name for name in others if name in theirs and theirs[name].still == still)
        if names:
            first = min(theirs[name].update for name in names)
            said = f"what got no gradient {does}, with its state, where the first run's {instead}"
            yield Finding(NAME, "rule", said, first, names, phase="after")
