"""optax.apply_every: a run whose optimizer takes each micro-batch, and adds up its updates."""

from __future__ import annotations

from collections.abc import Iterator

from lockstep.trace.findings import Finding, turned
from lockstep.trace.reading import Trace

APPLY_EVERY = "apply-every"


def added_up(trace: Trace) -> int:
    """The updates of how many micro-batches are added up; 1 where each is taken."""
    links = [link for group in trace.groups for link in group.get("links", ())]
    return max([int(link.get("k", 1)) for link in links if link["name"] == "apply_every"] or [1])


def added_up_findings(mine: Trace, theirs: Trace) -> Iterator[Finding]:
    """That one of two runs adds up its updates, where the other takes one for a window."""
    right, port = added_up(mine), added_up(theirs)
    if right == port:
        return
    every = port if port > 1 else right
    said = (
        f"optax.apply_every({every}) adds up the updates of {every} micro-batches, each of which"
        " the optimizer takes by itself: its state, decay and schedule go on with every one;"
        f" optax.MultiSteps(optimizer, {every}) adds up their gradients"
    )
    name = APPLY_EVERY
    if port == 1:
        name, said = turned(name, said)
    yield Finding(name, "window", said, 1, phase="accumulated")
