"""Runs in which optimizers of several kinds step a part of the model each: a part at a time."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from lockstep.problem import Optimizer
from lockstep.problem.settings import OPTIMIZERS
from lockstep.trace.identify import Identified
from lockstep.trace.matching import Matching
from lockstep.trace.settings import settings_of


def by_kind(
    first: Identified, second: Identified, matching: Matching
) -> list[tuple[Identified, Identified]]:
    """Two runs, or those of their parts that optimizers of one kind step in each.

    Of what one of them never moves, the other's kind.
    """
    here, there = first.steps.families, second.steps.families
    kinds: dict[tuple[str, str], list[str]] = {}
    for name, match in matching.matches.items():
        own = next((there[other] for other in match.others if other in there), "")
        both = here.get(name, own), own or here.get(name, "")
        kinds.setdefault(both, []).append(name)
    still = kinds.pop(("", ""), [])
    if len(kinds) < 2:
        return [(first, second)]
    found = []
    for names in kinds.values():
        mine = part_of(first, [*names, *still])
        found.append((mine, part_of(second, matching.others([*names, *still]), mine.optimizer)))
        still = []
    return found


def part_of(run: Identified, names: Collection[str], other: Optimizer | None = None) -> Identified:
    """A run of which nothing but some tensors is looked at; other: the first run's settings."""
    steps = {key: step for key, step in run.steps.of.items() if step.name in names}
    found = replace(run, steps=replace(run.steps, of=steps), optimizer=Optimizer())
    found.optimizer = settings_of(found.steps, found, other)
    if "eps" not in OPTIMIZERS[found.optimizer.name]:
        found.eps = {}  # a chain of optax lists all tensors under all of its settings
    return found
