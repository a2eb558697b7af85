"""The ranks of one run, which recorded a trace each: whether they stay together."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from lockstep.record.writer import RUN
from lockstep.trace.findings import Finding, listed
from lockstep.trace.reading import Trace, Update

RANK = re.compile(r"rank-(\d+)")
# Ranks take the same update of the same numbers. What adds them up in another order rounds.
CLOSE = 1e-5


def folders(folder: Path) -> list[Path]:
    """The traces of a run's ranks, in order; the run's own, where it has one."""
    ranks = [each for each in folder.glob("rank-*") if RANK.fullmatch(each.name)]
    if (folder / RUN).exists() or not ranks:
        return [folder]
    return sorted(ranks, key=lambda each: int(each.name.removeprefix("rank-")))


def rank_findings(traces: Sequence[Trace]) -> Iterator[Finding]:
    """The first update after which two ranks have other parameters, and what made them so."""
    first, *others = traces
    for update in first.updates:
        for trace in others:
            other = trace.update(update.number)
            if other is None:
                return
            off = apart("after", update, other)
            if not off:
                continue
            own = set(off) & set(apart("accumulated", update, other))
            what = "it steps with its own gradient, which nothing adds up over the ranks"
            why = what if own else "the gradients of both are the same there"
            said = (
                f"after update {update.number}, {len(off)} of {len(first.parameters)} parameters"
                f" of {trace.folder.name} are other ones than {first.folder.name}'s:"
                f" {listed(off)}; {why}"
            )
            name = "ranks not synchronised" if own else "ranks apart"
            yield Finding(name, "window", said, update.number, tuple(off), "accumulated")
            return


def apart(phase: str, update: Update, other: Update) -> list[str]:
    """The tensors of a phase that two ranks have otherwise."""
    found = []
    for name in update.phases.get(phase, ()):
        one, two = update.array(phase, name), other.array(phase, name)
        if one is not None and two is not None:
            largest = float(abs(one).max(initial=0.0))
            if float(abs(one - two).max(initial=0.0)) > CLOSE * largest:
                found.append(name)
    return found
