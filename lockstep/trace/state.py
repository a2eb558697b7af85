"""The state of an optimizer that does not go on, or begins otherwise, and what moves besides."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator
from dataclasses import replace

import numpy as np

from lockstep.problem import Optimizer
from lockstep.trace.findings import Finding, listed, turned
from lockstep.trace.frozen import CORRECTED
from lockstep.trace.identify import Identified, linear
from lockstep.trace.matching import Matching
from lockstep.trace.numbers import Number, agreed, unit
from lockstep.trace.placement import as_torch_keeps
from lockstep.trace.steps import Step, Steps, goes_on

# What a rule that counts nothing keeps of its gradients, and of what power of them.
KEPT = {
    "sgd": ("momentum_buffer", 1), "rmsprop": ("square_avg", 2), "adadelta": ("square_avg", 2),
    "adagrad": ("sum", 2),
}  # fmt: skip

# How far a state that two runs begin with may be apart: they have the same parameters there.
RESUMED = 1e-3


def as_kept(run: Steps) -> Steps:
    """The same run, with its state as torch.optim keeps it, and empty where it was thrown away.

    RMSprop's momentum shows in what unit it is where it is known from when on it goes; SGD's is
    known to be thrown away in its unit.
    """
    return begun_anew(as_torch_keeps(begun_anew(run)))


def begun_anew(run: Steps) -> Steps:
    """The same run, with an empty state before an update that keeps its own gradients alone.

    Its optimizer has thrown away what it had, and counts no updates that would tell.
    """
    slot, power = KEPT.get(run.family, ("", 0))
    if slot not in run.slots:
        return run
    start, gains = run.begins_at.get(slot, 0.0), dict[int, Number]()
    for update, steps in run.by_update.items():
        known = [step for step in steps.values() if slot in step.kept_before]
        gain = gain_alone(known, slot, power, start)
        if gain is not None and any((step.kept_before[slot] != start).any() for step in known):
            gains[update] = gain
    if not gains:
        return run
    others = {key: step for key, step in run.of.items() if key[0] not in gains}
    whole = Identified(replace(run, of=others), Optimizer()).share_of_squares
    # Of a gradient that never changes, a state is a multiple too, and of more than is kept of one.
    anew = [u for u, gain in gains.items() if whole and 0 < gain.value <= whole.value + gain.error]

    def emptied(step: Step) -> Step:
        kept = step.kept_before.items()
        return replace(
            step,
            kept_before={n: np.full_like(a, run.begins_at.get(n, 0.0)) for n, a in kept},
        )

    of = {key: emptied(step) for key, step in run.of.items() if key[0] in anew}
    return replace(run, of=run.of | of, anew=sorted({*run.anew, *anew}))


def gain_alone(steps: Iterable[Step], slot: str, power: int, start: float) -> Number | None:
    """With what gradients alone, of a power, make up a state; None if they do not."""
    found = []
    for step in steps:
        if step.gradient is None or not step.gradient.any():
            continue
        column = step.gradient**power
        dtype, kept = step.dtype_of(slot), step.kept[slot]
        off = power * unit(step.dtype) * abs(column) + unit(dtype) * abs(kept)
        fitted = linear(kept - start, [column], 1, dtype, off)
        if not fitted.exact:
            return None
        found.append(fitted.coefficients[0])
    return agreed(found)


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


def state_findings(mine: Identified, theirs: Identified, matching: Matching) -> Iterator[Finding]:
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
        taken = taken_before(run)
        name, words = "opt-state-dropped", ("it begins", "the first run's")
        if run is theirs:
            name, words = f"without {name}", ("the first run begins", "its own")
        said = f"{words[0]} with an empty state, where {words[1]} has {taken} updates in it"
        yield Finding(name, "state", said, 1, phase="state-before")
    elif goes_on(mine.steps.trace):
        yield from resumed_findings(mine, theirs, matching)


def taken_before(run: Identified) -> int:
    """How many updates a run's optimizer had taken when it begins, as it counts, or the trace."""
    counted = max((step.taken for step in run.steps.at(1).values()), default=0)
    earlier = run.steps.trace.earlier
    return counted or (int(earlier.facts["update"]) if earlier else 0)


def resumed_findings(mine: Identified, theirs: Identified, matching: Matching) -> Iterator[Finding]:
    """A state of a run that was resumed which is not the first run's at that point."""
    here, there = mine.steps.at(1), theirs.steps.at(1)
    counts = [{step.taken for step in run.values()} for run in (here, there)]
    corrects = theirs.steps.family in CORRECTED
    if corrects and all(len(each) == 1 for each in counts) and counts[0] != counts[1]:
        said = (
            f"its optimizer begins as if it had taken {counts[1].pop()} updates, and the first"
            f" run's had taken {counts[0].pop()}: it corrects its moments for those"
        )
        yield Finding("another count", "state", said, 1, phase="state-before")
    off: dict[str, list[str]] = {}
    for name, match in matching.matches.items():
        step, others = here.get(name), [there.get(other) for other in match.others]
        if step is None or len(others) != 1 or (other := others[0]) is None:
            continue
        for slot in step.kept_before.keys() & other.kept_before.keys():
            right, begun = step.kept_before[slot], other.kept_before[slot]
            own = match.arranged([begun], sketched=begun.size != math.prod(match.shape))
            if own is None or own.shape != right.shape:
                continue
            near = max(RESUMED, unit(step.dtype_of(slot)), unit(other.dtype_of(slot)))
            if np.linalg.norm(own - right) > near * np.linalg.norm(right):
                off.setdefault(slot, []).append(other.name)
    for slot, names in sorted(off.items()):
        said = (
            f"it begins with another {slot} of {listed(names)} than the first run has there, of"
            " which it is to go on"
        )
        yield Finding("another initial state", "state", said, 1, tuple(names), "state-before")


def dtypes_of(run: Steps) -> dict[str, str]:
    """The dtypes of the state that is kept in another one than its parameter."""
    return {slot: dtype for step in run.of.values() for slot, dtype in step.dtypes.items()}
