"""Which mistakes reproduce a port's numbers: diagnosis is replay.

A mistake explains a port if its replay is the port's trajectory on every probe, within the rounding
bound, where it differs from the correct loop and where it does not. Single mistakes come first,
then pairs. What no probe separates is reported together, and what nothing explains is unknown.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import combinations

import numpy as np

from lockstep import mistakes
from lockstep.diagnosis.probes import Probe
from lockstep.diagnosis.replay import Replay, Replays, merged
from lockstep.oracle.compare import Divergence, compare_bounds
from lockstep.oracle.loop import Stages
from lockstep.problem import Array
from lockstep.workers.ports import OFFERED

# What the recipe yields for its logs; it is of no use here.
KNOWN = {"norm", "updates", "loss_scale", "step"}


@dataclass(frozen=True, eq=False)
class Run:
    """What a port did on a probe: W above b after every update, and what else it offered."""

    probe: Probe
    trajectory: list[Array]
    more: Mapping[str, list[Array]] = field(default_factory=dict)

    @cached_property
    def correct(self) -> Replays:
        """The correct loop on this probe."""
        return Replays(self.probe)

    @cached_property
    def same(self) -> bool:
        """Whether the parameters are the correct ones after every update."""
        return self.correct.reproduces(self.trajectory)

    @cached_property
    def differing(self) -> list[str]:
        """What the port offers beside the parameters, and is not what the correct loop has."""
        return self.correct.differing(self.more) if self.same else []

    @property
    def unknown(self) -> list[str]:
        """What the port offers, and the loop does not have under this name."""
        careful = self.correct.careful
        return sorted(set(self.more) - set(careful.observed if careful else ()) - KNOWN)

    @property
    def cost(self) -> int:
        """How long a replay takes, in micro-steps."""
        return self.probe.problem.epochs * len(self.probe.problem.micro_batches)


@dataclass(frozen=True)
class Part:
    """Where a port first parts from the correct loop.

    first: the first number that differs, or None where there are only fewer or more updates.
    relative: how far it is off, over the largest parameter of the update.
    """

    probe: Probe
    updates: int
    expected: int
    first: Divergence | None
    relative: float

    def __str__(self) -> str:
        parts = []
        if self.first is not None and math.isfinite(self.first.actual):
            parts.append(f"{self.first}, {self.relative:.1e} of the largest")
        elif self.first is not None:
            parts.append(f"update {self.first.update}, {self.first.where}: {self.first.actual}")
        if self.updates >= self.probe.limit:
            parts.append(f"it goes on after its {self.expected} updates")
        elif self.updates != self.expected:
            plural = "s" * (self.updates != 1)
            parts.append(f"{self.updates} update{plural} instead of {self.expected}")
        return "; ".join(parts)


@dataclass(frozen=True)
class Explanation:
    """Mistakes that reproduce every probe: one, or a pair.

    stages: the loop that makes them; differing: what the port offers beside the parameters and
    these mistakes have otherwise.
    """

    names: tuple[str, ...]
    stages: Stages
    differing: tuple[str, ...] = ()


@dataclass(frozen=True)
class Diagnosis:
    """What came of it.

    parts: where the port parts from the correct loop, a probe each; differing: what it offers
    beside the parameters, by probe, where that is not the correct loop's; explanations: those that
    no probe separates, the most frequent mistake first; none where the mistake is unknown.
    """

    runs: Sequence[Run]
    parts: Sequence[Part]
    differing: Mapping[str, list[str]]
    explanations: Sequence[Explanation]

    @property
    def same(self) -> bool:
        """Whether the port takes the same update on every probe, and says so."""
        return not self.parts and not self.differing

    @property
    def unknown(self) -> bool:
        """Whether the port differs, and no known mistake says why."""
        return not self.same and not self.explanations

    @cached_property
    def suspects(self) -> list[str]:
        """The ingredients of all probes that differ and of none that does not."""
        wrong = {part.probe.name for part in self.parts}
        sets = [run.probe.ingredients for run in self.runs if run.probe.name in wrong]
        fine = [run.probe.ingredients for run in self.runs if run.probe.name not in wrong]
        shared = frozenset.intersection(*sets) if sets else frozenset()
        return sorted(shared.difference(*fine))


def part_of(run: Run) -> Part:
    """Where a run first parts from the correct loop."""
    right = run.correct.careful
    assert right is not None, f"the correct loop fails on {run.probe.name}"
    common = min(len(right.values), len(run.trajectory))
    compared = compare_bounds(right.values[:common], run.trajectory[:common], right.bounds[:common])
    first, relative = compared.first, 0.0
    if first is not None:
        size = float(abs(right.values[first.update - 1]).max()) or 1.0
        relative = abs(first.actual - first.expected) / size
    return Part(run.probe, len(run.trajectory), len(right.values), first, relative)


class Search:
    """The catalogue, held against what a port did on its probes."""

    def __init__(self, runs: Sequence[Run], catalogue: Sequence[str]) -> None:
        """Put the runs that tell most in front: what is wrong, then what is quick."""
        self.runs = sorted(runs, key=lambda run: (run.same, run.cost))
        self.forms = [
            (name, stages)
            for name in catalogue
            for stages in (mistakes.load(name).stages, *mistakes.load(name).forms)
        ]

    def singles(self) -> Iterator[Explanation]:
        """The single mistakes that reproduce every run."""
        for name, stages in self.forms:
            yield from self.explained((name,), stages)

    def pairs(self) -> Iterator[Explanation]:
        """The pairs of mistakes, of different stages, that do."""
        for (one, first), (other, second) in combinations(self.forms, 2):
            both = merged(first, second)
            if one != other and both is not None:
                yield from self.explained((one, other), both)

    def explained(self, names: tuple[str, ...], stages: Stages) -> Iterator[Explanation]:
        """An explanation, if the loop with these stages reproduces every run."""
        replays = [Replays(run.probe, stages) for run in self.runs]
        held = list(zip(self.runs, replays, strict=True))
        # Floats sort out nearly all, at a tenth of the cost of numbers that carry their error.
        if not all(replay.resembles(run.trajectory) for run, replay in held):
            return
        if not all(replay.reproduces(run.trajectory) for run, replay in held):
            return
        differing = dict.fromkeys(
            name for run, replay in held for name in replay.differing(run.more)
        )
        yield Explanation(names, stages, tuple(differing))


def diagnose(
    runs: Sequence[Run], catalogue: Sequence[str] | None = None, pairs: bool = True
) -> Diagnosis:
    """Find the mistakes of a port in what it did.

    `catalogue` is all of it unless given. Pairs are tried where no single mistake explains.
    """
    parts = [part_of(run) for run in runs if not run.same]
    differing = {run.probe.name: run.differing for run in runs if run.differing}
    found: list[Explanation] = []
    if parts or differing:
        search = Search(runs, mistakes.names() if catalogue is None else catalogue)
        found = best(search.singles(), bool(parts))
        if not found and pairs and parts:
            found = best(search.pairs(), True)
    return Diagnosis(runs, parts, differing, found)


def best(explanations: Iterator[Explanation], differ: bool) -> list[Explanation]:
    """Those that explain most of what the port offers, the most frequent mistakes first.

    Where the parameters do not `differ`, an explanation must have all that the port offers.
    """
    found = list(explanations)
    least = min((len(each.differing) for each in found), default=0)
    if least and not differ:
        return []
    kept: dict[tuple[str, ...], Explanation] = {}
    for each in found:
        if len(each.differing) == least:
            kept.setdefault(each.names, each)

    def order(explanation: Explanation) -> tuple[int, ...]:
        loaded = [mistakes.load(name) for name in explanation.names]
        kinds = sum(each.kind != "mistake" for each in loaded)
        return kinds, -sum(each.frequency for each in loaded)

    return sorted(kept.values(), key=order)


def separation(
    one: Explanation, other: Explanation, runs: Sequence[Run], rest: Sequence[Probe]
) -> str:
    """What would tell two explanations apart: something to yield, or a probe to support.

    `rest` are the probes that the port was not driven with.
    """
    for run in runs:
        first = Replays(run.probe, one.stages).careful
        second = Replays(run.probe, other.stages).careful
        if first is not None and second is not None:
            for name in observable(first, second):
                what = name if name in OFFERED else f"state: {name}"
                return f"yield {what} ({run.probe.title})"
    for probe in rest:
        mine = Replays(probe, one.stages).quick
        theirs = Replays(probe, other.stages)
        if (mine is None) != (theirs.quick is None):
            return f"support {probe.title}"
        if mine is not None and not theirs.reproduces(mine):
            return f"support {probe.title}"
    return ""


def observable(first: Replay, second: Replay) -> Iterator[str]:
    """The names of what two replays have otherwise, beyond both of their bounds."""
    for name, (values, bounds) in first.observed.items():
        others, other_bounds = second.observed.get(name, ([], []))
        if len(others) != len(values):
            continue
        for mine, theirs, bound, other in zip(values, others, bounds, other_bounds, strict=True):
            with np.errstate(invalid="ignore"):
                if (abs(mine - theirs) > bound + other).any():
                    yield name
                    break
