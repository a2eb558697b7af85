"""The state of an optimizer that does not go on, or begins otherwise, and what moves besides."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator

from lockstep.trace.findings import Finding, listed, turned
from lockstep.trace.identify import Identified
from lockstep.trace.steps import Steps, goes_on


def between(
    theirs: Steps, mine: Steps | None = None, alone: Collection[str] = ()
) -> Iterator[Finding]:
    """Parameters that changed between two updates, and did not in the first run.

    But for those that are averages of others, in both or without a counterpart: alone.
    """
    both = theirs.targets and (mine is None or mine.targets)
    own, right = (
        changes(run, run.targets if both else run.targets.keys() & {*alone}) if run else {}
        for run in (theirs, mine)
    )
    for update in sorted(own.keys() ^ right.keys()):
        name, found = "changed between updates", own.get(update) or right[update]
        of, most = tuple(found), max(found.values())
        said = (
            f"between update {update - 1} and {update} something else changed {listed(of)}, by up"
            f" to {most:.2g}"
        )
        if update not in own:
            name, said = turned(name, said)
        yield Finding(name, "between", said, update, of, "before")
        return


def changes(run: Steps, but: Collection[str]) -> dict[int, dict[str, float]]:
    """By update, which parameters changed since the one before, but for some, and by how much."""
    found: dict[int, dict[str, float]] = {}
    for number, name, by in run.between:
        if name not in but:
            found.setdefault(number, {})[name] = by
    return found


def state_findings(mine: Identified, theirs: Identified) -> Iterator[Finding]:
    """An optimizer's state that does not go on, or begins as another one."""
    anew = [run.steps.anew for run in (mine, theirs)]
    if anew[0] != anew[1] and not (anew[0] and anew[1]):
        number = max(anew)[0]
        name, said = (
            "opt-state-dropped",
            f"before update {number} the optimizer's state was thrown away: what {number - 1}"
            " updates had left in it is gone",
        )
        if anew[0]:
            name, said = turned(name, said)
        yield Finding(name, "state", said, number, phase="state-before")
        return
    here, there = mine.steps.begins_at, theirs.steps.begins_at
    for slot in sorted(here.keys() & there.keys()):
        # A number that was set may be one of float32.
        if not math.isclose(here[slot], there[slot], rel_tol=2.0**-20):
            said = f"{slot} begins at {there[slot]:.4g} instead of {here[slot]:.4g}"
            yield Finding("another initial state", "state", said, 1, phase="state-before")
    coarse, own = (dtypes_of(run.steps) for run in (mine, theirs))
    usual = "its parameter's dtype"
    for slot in sorted(coarse.keys() | own.keys()):
        if own.get(slot) != coarse.get(slot):
            said = f"{slot} is kept in {own.get(slot, usual)} instead of {coarse.get(slot, usual)}"
            yield Finding("another dtype", "state", said, 1, phase=f"state.{slot}")
    if here and there:
        # They begin at one number: there was nothing in it that could be lost.
        return
    if goes_on(mine.steps.trace) != goes_on(theirs.steps.trace):
        run = mine if goes_on(mine.steps.trace) else theirs
        taken = max((step.taken for step in run.steps.at(1).values()), default=0)
        name, words = "opt-state-dropped", ("it begins", "the first run's")
        if run is theirs:
            name, words = f"without {name}", ("the first run begins", "its own")
        said = f"{words[0]} with an empty state, where {words[1]} has {taken} updates in it"
        yield Finding(name, "state", said, 1, phase="state-before")


def dtypes_of(run: Steps) -> dict[str, str]:
    """The dtypes of the state that is kept in another one than its parameter."""
    return {slot: dtype for step in run.of.values() for slot, dtype in step.dtypes.items()}
