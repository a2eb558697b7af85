"""An average of the parameters that a run keeps beside them, and what an update leaves of it.

Most call it EMA: average = d * average + (1 - d) * parameters. What is recorded of one update and
of the next says by how much it went on in between: 1 - d, if that is done once an update.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np

from lockstep.trace.findings import Finding
from lockstep.trace.numbers import Number, fit, unit
from lockstep.trace.reading import Update
from lockstep.trace.steps import Steps

# By where it was recorded: which parameters it went towards, until the next record. One that is
# part of an optimizer is recorded after a step, the others before it.
TOWARDS = {"average": ("after",), "state.average": ("next before", "next after")}
# From which error on what an update keeps of an average says nothing.
LOOSE = 0.1

# An array that an update has: its phase, and its name.
Place = tuple[Update, str, str]


def kept(steps: Steps) -> dict[int, Number]:
    """By update: how much of the average is left at the next one; nothing where there is none."""
    found, inside = {}, steps.targets
    for update, following in pairwise(steps.trace.updates):
        if following.number != update.number + 1:
            continue
        phase = phase_of(update)
        if phase is not None:
            every = [of_phase(update, following, phase, name) for name in update.phases[phase]]
        else:
            every = [of_target(update, following, *each) for each in inside.items()]
        left = share(every)
        if left is not None and left.error < LOOSE:
            found[update.number] = left
    return found


def phase_of(update: Update) -> str | None:
    """Where an average was recorded, if there is one."""
    return next((each for each in TOWARDS if update.phases.get(each)), None)


def of_phase(update: Update, following: Update, phase: str, name: str) -> list[Place]:
    """An average of a phase of its own, at an update and the next, and what it goes towards."""
    found = [(update, phase, name), (following, phase, name)]
    for place in TOWARDS[phase]:
        later = following if place.startswith("next ") else update
        found.append((later, place.removeprefix("next "), name))
    return found


def of_target(update: Update, following: Update, name: str, source: str) -> list[Place]:
    """The same of a parameter that is an average of another one."""
    return [(update, "before", name), (following, "before", name), (update, "after", source)]


def share(every: Sequence[Sequence[Place]]) -> Number | None:
    """What is left of an average: no number where it is no mean of itself and the parameters.

    None where that cannot be told: it was not recorded, or it is the parameters.
    every: by tensor, the average, where it went, and what it goes towards.
    """
    moved, columns, bounds = [], [], []
    for places in every:
        found = [update.array(phase, name) for update, phase, name in places]
        if any(array is None for array in found):
            continue
        if len({array.size for array in found if array is not None}) > 1:
            # Whole at one of both, and a sketch at the other.
            found = [update.sketch(phase, name) for update, phase, name in places]
        arrays = [array.ravel() for array in found if array is not None]
        average, went, *towards = arrays
        moved.append(went - average)
        columns.append(np.stack([each - average for each in towards], axis=1))
        update, phase, name = places[0]
        bounds.append(2 * unit(update.dtype(phase, name)) * np.abs(np.stack(arrays)).sum(axis=0))
    if not moved:
        return None
    matrix = np.concatenate(columns)
    if not matrix.any(axis=0).all():
        return None
    fitted = fit(np.concatenate(moved), list(matrix.T), np.concatenate(bounds))
    if not fitted.exact:
        return Number(math.nan, 0.0)
    gone = fitted.coefficients
    return Number(1 - sum(each.value for each in gone), sum(each.error for each in gone))


def power(number: Number, exponent: int) -> Number:
    """A number to a power."""
    value = number.value**exponent
    return Number(value, exponent * abs(number.value) ** (exponent - 1) * number.error)


def averaging_findings(mine: Steps, theirs: Steps, accumulation_steps: int) -> Iterator[Finding]:
    """An average that goes on otherwise than the first run's."""
    right, own = kept(mine), kept(theirs)
    both = [update for update in own if update in right and math.isfinite(right[update].value)]
    if all(own[update].equals(right[update]) for update in both):
        return
    # AveragedModel begins as a copy, whenever that is.
    begun = [u for u in both if not (own[u].equals(0.0) or right[u].equals(0.0))] or both
    k, first = accumulation_steps, next((u for u in begun if not own[u].equals(right[u])), begun[0])
    said = (
        f"of the average of the parameters an update leaves {own[first]} instead of {right[first]}"
    )
    name = "another average"
    if not math.isfinite(own[first].value):
        said = (
            f"from update {first} on the average goes where no mean of it and the parameters does"
        )
    elif k > 1 and all(own[u].equals(power(right[u], k)) for u in begun):
        name = "average per micro-step"
        said += f", its {k}th power: it is taken at every micro-step"
    elif k > 1 and all(right[u].equals(power(own[u], k)) for u in begun):
        name = "average per update"
        said += f", its {k}th root: it is taken once an update, and at every micro-step there"
    yield Finding(name, "average", said, first, phase="average")


def averaging_notes(mine: Steps, theirs: Steps) -> Iterator[str]:
    """What one run alone has shown."""
    # In JAX it is kept as it is at the next update.
    shown = [
        run.trace for run in (mine, theirs) if any(map(phase_of, run.trace.updates)) or run.targets
    ]
    if len(shown) == 1:
        yield f"an average of the parameters was recorded of {shown[0].folder.name} alone"
