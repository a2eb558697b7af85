"""Tensors that an update leaves alone, as one that is frozen for a time, or an expert without work.

PyTorch's optimizers skip a tensor that has no gradient, with its state and its count of updates; a
gradient of zeros is one, and is taken.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import replace

import numpy as np

from lockstep.trace.findings import Finding, listed, turned
from lockstep.trace.matching import Matching
from lockstep.trace.steps import HALF, Step, Steps

NAME, COUNTED = "frozen", "counts while frozen"
# What moves a tensor that is frozen all the same.
STALE = "frozen-with-stale-grad", "the optimizer goes on with the one that they have kept"
UNFED = "frozen with zeros", "the zeros that are left are one: momentum and decay move them on"
# How near the norms of two gradients are that are taken for one.
LIKE = 1e-3
# The rules whose first updates are corrected by how many there were.
CORRECTED = ("adam", "adamax")
Keys = frozenset[tuple[int, str]]


def skipped(steps: Steps) -> Keys:
    """The updates, and tensors in them, that have no gradient and stand still, where others move.

    But for those that never move.
    """
    found = set()
    for each in steps.by_update.values():
        if any(step.gradient is not None for step in each.values()):
            found |= {
                (step.update, name)
                for name, step in each.items()
                if step.gradient is None and name not in steps.still and step.stands
            }
    return frozenset(found)


def without(steps: Steps, keys: Keys) -> Steps:
    """The same steps but these."""
    return replace(steps, of={key: step for key, step in steps.of.items() if key not in keys})


def skipped_findings(
    mine: Steps, theirs: Steps, keys: Keys, other_keys: Keys, matching: Matching
) -> Iterator[Finding]:
    """Which tensors one of the runs alone leaves as they are, and in which updates."""
    for own, still, other, moving in (
        (True, other_keys, keys, mine),
        (False, keys, other_keys, theirs),
    ):
        updates: dict[str, list[int]] = {}
        for name, match in matching.matches.items():
            for counterpart in match.others:
                here, there = (counterpart, name) if own else (name, counterpart)
                for update in moving.numbers:
                    step = moving.of.get((update, there))
                    alone = (update, here) in still and (update, there) not in other
                    if alone and step is not None and moves(step):
                        updates.setdefault(counterpart, []).append(update)
        if updates:
            first = min(map(min, updates.values()))
            names = tuple(name for name, each in updates.items() if first in each)
            said = (
                f"{listed(names)} stand still in {numbered(updates[names[0]])}, without a gradient"
            )
            name, said = (NAME, said) if own else turned(NAME, said)
            yield Finding(name, "rule", said, first, names, "after")


def unfed_findings(mine: Steps, theirs: Steps, matching: Matching) -> Iterator[Finding]:
    """Tensors that move on without a gradient of their own, in one of the runs alone.

    PyTorch's optimizers look at `.grad` alone, which a tensor that is frozen keeps.
    """
    for own, run, other in ((True, theirs, mine), (False, mine, theirs)):
        off: dict[int, list[Step]] = {}
        for name, match in matching.matches.items():
            for counterpart in match.others:
                here, there = (counterpart, name) if own else (name, counterpart)
                for update in run.numbers:
                    step, fed = run.of.get((update, here)), other.of.get((update, there))
                    if step and fed and fed.accumulated is not None and unfed(step, fed, run):
                        off.setdefault(update, []).append(replace(step, name=counterpart))
        for update in sorted(off)[:1]:
            stale = any(step.clipped is not None and step.clipped.any() for step in off[update])
            names = tuple(step.name for step in off[update])
            name, what = STALE if stale else UNFED
            said = f"from update {update} on no gradient reaches {listed(names)}, and {what}"
            name, said = (name, said) if own else turned(name, said)
            yield Finding(name, "rule", said, update, names, "clipped")


def unfed(step: Step, fed: Step, run: Steps) -> bool:
    """Whether a tensor moves by what is in its `.grad`, and nothing was added to that.

    fed: the other run's step of it: if its rule gets as much, it comes to the same.
    """
    if step.accumulated is not None or step.clipped is None or fed.gradient is None:
        return False
    own, right = (float(np.linalg.norm(each)) for each in (step.clipped, fed.gradient))
    others = any(each.accumulated is not None for each in run.at(step.update).values())
    return others and moves(step) and abs(own - right) > LIKE * right


def numbered(updates: Collection[int]) -> str:
    """Some updates, in words."""
    words = "updates" if len(updates) > 1 else "update"
    return f"{words} {listed([str(each) for each in updates])}"


def moves(step: Step) -> bool:
    """Whether a tensor is moved by more than what its numbers round."""
    moved = step.after - step.before
    return step.dtype not in HALF and bool(np.linalg.norm(moved) > np.linalg.norm(step.rounding))


def counted_findings(mine: Steps, theirs: Steps, matching: Matching) -> Iterator[Finding]:
    """Which tensors' updates one of the runs alone counts for as long as they are frozen."""
    if theirs.family not in CORRECTED or mine.family != theirs.family:
        return
    here, there = first_moves(mine), first_moves(theirs)
    off: dict[tuple[int, int, int], list[str]] = {}
    for name, match in matching.matches.items():
        for other in match.others:
            first, second = here.get(name), there.get(other)
            if first is None or second is None or first.update != second.update:
                continue
            if first.update > min(mine.numbers) and first.taken != second.taken:
                key = first.update, second.taken + 1, first.taken + 1
                off.setdefault(key, []).append(other)
    for (update, own, right), names in off.items():
        said = (
            f"update {update}, the first that moves {listed(names)}, is number {own} to the"
            f" optimizer, which goes by that; in the first run it is number {right}"
        )
        yield Finding(COUNTED, "rule", said, update, tuple(names), "after")


def first_moves(steps: Steps) -> dict[str, Step]:
    """By tensor, the first update that moves it."""
    found: dict[str, Step] = {}
    for each in steps.by_update.values():
        for name, step in each.items():
            if name not in found and not np.array_equal(step.before, step.after):
                found[name] = step
    return found
