"""An average of the parameters that a run keeps beside them, and what an update leaves of it.

Most call it EMA: average = d * average + (1 - d) * parameters. What is recorded of one update and
of the next says by how much it went on in between: 1 - d, if that is done once an update.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from lockstep.trace.findings import Finding, turned
from lockstep.trace.numbers import Number, fit, unit
from lockstep.trace.reading import Update
from lockstep.trace.steps import Steps

# By where it was recorded: which parameters it may go towards until the next record. One that is
# part of an optimizer is recorded after a step, the others before it.
WAYS = {
    "average": (("after",), ("before",), ("after", "before")),
    "state.average": (("next after",), ("next before", "next after")),
}
# From which error on what an update keeps of an average says nothing.
LOOSE = 0.1


@dataclass(frozen=True)
class Going:
    """How an average goes on from one update to the next.

    left: what is left of it, no number where it is no mean of itself and the parameters; behind:
    whether it goes towards those before the update alone, None where that does not show; seen:
    whether it is other than those, towards which it goes unseen otherwise.
    """

    left: Number
    behind: bool | None
    seen: bool

    @property
    def known(self) -> bool:
        """Whether it is a mean of itself and the parameters."""
        return math.isfinite(self.left.value)

    def equals(self, other: Going) -> bool:
        """Whether it may be the same."""
        if self.seen is not other.seen:
            return True
        if not (self.known and other.known):
            return self.known is other.known
        return self.left.equals(other.left) and not self.lags(other)

    def lags(self, other: Going) -> bool:
        """Whether one alone goes towards the parameters before the update."""
        return {self.behind, other.behind} == {True, False}


def kept(steps: Steps) -> dict[int, Going]:
    """By update: how the average goes on until the next one; nothing where there is none."""
    found = {}
    for update, following in pairwise(steps.trace.updates):
        if following.number != update.number + 1:
            continue
        phase = phase_of(update)
        names = of_which(update.phases[phase], steps.trace.parameters) if phase else steps.targets
        left = {
            way: share(update, following, phase or "before", names, way)
            for way in WAYS[phase or "average"]
        }
        ways = {way: number for way, number in left.items() if number is not None}
        fits = [way for way, number in ways.items() if math.isfinite(number.value)]
        number = ways[fits[0]] if fits else Number(math.nan, 0.0)
        behind = None if {("after",), ("before",)} <= {*fits} else fits[:1] == [("before",)]
        if ways and not number.error >= LOOSE:
            found[update.number] = Going(number, behind, ways.keys() == left.keys())
    return found


def phase_of(update: Update) -> str | None:
    """Where an average was recorded, if there is one."""
    return next((each for each in WAYS if update.phases.get(each)), None)


def of_which(names: Collection[str], parameters: Sequence[str]) -> dict[str, str]:
    """Of which parameter each tensor is an average, where only a part of the model may have one."""
    found = {name: name for name in names if name in parameters}
    for name in (each for each in names if each not in found):
        ends = [p for p in parameters if p.endswith((f"/{name}", f".{name}"))]
        found |= {name: ends[0]} if len(ends) == 1 else {}
    return found


def share(
    update: Update, following: Update, phase: str, names: Mapping[str, str], way: tuple[str, ...]
) -> Number | None:
    """What is left of an average: no number where it goes elsewhere.

    None where that cannot be told: it was not recorded, or it is the parameters.
    phase: in which it is recorded; names: of its tensors, and of the parameters that each is an
    average of; way: the parameters that it may go towards.
    """
    moved, columns, bounds = [], [], []
    for name, source in names.items():
        places = [(update, phase, name), (following, phase, name)]
        for place in way:
            later = following if place.startswith("next ") else update
            places.append((later, place.removeprefix("next "), source))
        found = [each.array(part, its) for each, part, its in places]
        if any(array is None for array in found):
            continue
        if len({array.size for array in found if array is not None}) > 1:
            # Whole at one of both, and a sketch at the other.
            found = [each.sketch(part, its) for each, part, its in places]
        average, went, *towards = [array.ravel() for array in found if array is not None]
        moved.append(went - average)
        columns.append(np.stack([each - average for each in towards], axis=1))
        sizes = np.abs(np.stack([average, went, *towards])).sum(axis=0)
        bounds.append(2 * unit(update.dtype(phase, name)) * sizes)
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
    both = [update for update in own if update in right]
    copied = dict.fromkeys(copies(right, own), False) | dict.fromkeys(copies(own, right), True)
    off = copied.keys() | {update for update in both if not own[update].equals(right[update])}
    if not off:
        return
    seen = [u for u in both if own[u].seen and right[u].seen]
    begun = [u for u in seen or both if u not in copied] or both
    first = next((u for u in begun if u in off), min(off))
    if first in copied:
        which = "it" if copied[first] else "the first run's"
        name, said = "average copied", f"after update {first} {which} is a copy of the parameters"
        said += ", as AveragedModel begins, and the other one is not"
    else:
        name, said = how(first, begun, own, right, accumulation_steps)
    yield Finding(name, "average", said, first, phase="average")


def copies(run: Mapping[int, Going], other: Mapping[int, Going]) -> set[int]:
    """The updates after which an average is a copy of the parameters, and another one is not."""
    return {
        update
        for update, each in run.items()
        if each.left.equals(0.0)
        and (
            not other[update].left.equals(0.0)
            if update in other
            else update + 1 in other and other[update + 1].seen
        )
    }


def how(
    first: int, begun: Sequence[int], own: Mapping[int, Going], right: Mapping[int, Going], k: int
) -> tuple[str, str]:
    """What an average does otherwise, and what to say of it.

    first: the update that shows it; begun: the updates in which both go on.
    """
    here, there = own[first].left, right[first].left
    if not (own[first].known and right[first].known):
        said = f"from update {first} on it goes where no mean of it and the parameters does"
        return "another average", said if right[first].known else f"in the first run, {said}"
    if own[first].lags(right[first]) and all(own[u].left.equals(right[u].left) for u in begun):
        said = "it is taken before the step, of the parameters that the update before has left"
        name = "average before the step"
        return (name, said) if own[first].behind else turned(name, said)
    said = f"of the average of the parameters an update leaves {here} instead of {there}"
    if k > 1 and all(own[u].left.equals(power(right[u].left, k)) for u in begun):
        return "average per micro-step", f"{said}, its {k}th power: it is taken at every micro-step"
    if k > 1 and all(right[u].left.equals(power(own[u].left, k)) for u in begun):
        said += f", its {k}th root: it is taken once an update, and at every micro-step there"
        return "average per update", said
    return "another average", said


def averaging_notes(mine: Steps, theirs: Steps) -> Iterator[str]:
    """What one run alone has shown."""
    # In JAX it is kept as it is at the next update.
    shown = [
        run.trace for run in (mine, theirs) if any(map(phase_of, run.trace.updates)) or run.targets
    ]
    if len(shown) == 1:
        yield f"an average of the parameters was recorded of {shown[0].folder.name} alone"
