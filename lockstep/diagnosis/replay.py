"""Run the reference loop on a probe, whole or with replaced stages, and hold a port against it.

A bound needs no formulas of its own: the loop runs on numbers that carry their error (`Rounded`),
whatever its stages are. For a few updates that is tight, and it holds for mistakes too.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Any

import numpy as np

from lockstep.diagnosis.probes import Probe
from lockstep.oracle import loop
from lockstep.oracle.loop import STAGES, Snapshot, Stages
from lockstep.oracle.rounding import PRECISION
from lockstep.oracle.tracked import rounded
from lockstep.problem import Array, Problem

# Replays in floats sort out what is far off; the bound decides on the rest.
FAR = {"float64": 1e-6, "float32": 0.02}
# No bound is larger than that in float64; in float32, one may be.
NEAR = {"float64": 1e-9, "float32": 0.02}
# Both the port and the replay round.
BOTH = 2.0
# What a replay of a mistake may end with, on a problem that it makes no sense of.
FAILURES = (ArithmeticError, IndexError, KeyError, ValueError, NotImplementedError)


@dataclass(frozen=True)
class Replay:
    """What the loop does on a problem.

    values: W above b after every update that is shown; bounds: how far off rounding can have taken
    them; observed: the same of the gradient, the learning rate, the loss and the state, by name.
    """

    values: list[Array]
    bounds: list[Array]
    observed: dict[str, tuple[list[Array], list[Array]]]


@dataclass(frozen=True, eq=False)
class Replays:
    """The replays of one set of stages on a probe, each made when it is first needed.

    Both are None where the loop fails, as a mistake's can.
    """

    probe: Probe
    stages: Stages = STAGES

    @cached_property
    def quick(self) -> list[Array] | None:
        """W above b in float64, whatever the probe's dtype."""
        try:
            return list(self.updates())
        except FAILURES:
            return None

    @cached_property
    def made(self) -> list[Array]:
        """The updates of `quick` that were asked for so far."""
        return []

    @cached_property
    def _rest(self) -> Iterator[Array]:
        return in_floats(self.probe.problem, self.stages)

    @cached_property
    def _failed(self) -> list[Exception]:
        return []

    def updates(self) -> Iterator[Array]:
        """The updates of `quick`, each made once; raises one of FAILURES where the loop fails."""
        yield from self.made
        if self._failed:
            raise self._failed[0]
        try:
            for theta in self._rest:
                self.made.append(theta)
                yield theta
        except FAILURES as error:
            self._failed.append(error)
            raise

    @cached_property
    def careful(self) -> Replay | None:
        """The same, and all else that a port can offer, with bounds."""
        problem = self.probe.problem
        number = rounded(2.0 ** -PRECISION[problem.dtype], problem.dtype)
        try:
            with np.errstate(all="ignore"):
                found = list(loop.run(problem, number, self.stages, losses=True))
        except FAILURES:
            return None
        thetas = [split(each.theta) for each in found]
        return Replay(
            [values for values, _ in thetas],
            [bounds for _, bounds in thetas],
            observations(problem, found),
        )

    def reproduces(self, trajectory: Sequence[Array]) -> bool:
        """Whether a port's trajectory is this one, within the rounding bound."""
        if not self.resembles(trajectory, NEAR) or self.careful is None:
            return False
        far = self.far(trajectory, FAR)
        triples = zip(self.careful.values, trajectory, self.careful.bounds, strict=True)
        return all(agrees(e, actual, np.fmin(bound, far)) for e, actual, bound in triples)

    def far(self, trajectory: Sequence[Array], share: Mapping[str, float]) -> float:
        """From where on a number is off: a share of the largest of the trajectory, by dtype."""
        sizes = [float(abs(each[np.isfinite(each)]).max(initial=0)) for each in trajectory]
        return share[self.probe.problem.dtype] * max(sizes, default=0.0)

    def resembles(self, trajectory: Sequence[Array], share: Mapping[str, float] = FAR) -> bool:
        """Whether float64 comes near a trajectory; at the first number that is off, it ends."""
        far, count = self.far(trajectory, share), 0
        try:
            for theta in self.updates():
                if count == len(trajectory) or not agrees(theta, trajectory[count], far):
                    return False
                count += 1
        except FAILURES:
            return False
        return count == len(trajectory)

    def differing(self, observed: Mapping[str, Sequence[Array]]) -> list[str]:
        """The names of what a port offers beside the parameters, and this replay has otherwise."""
        if self.careful is None:
            return list(observed)
        found = []
        for name, (values, bounds) in self.careful.observed.items():
            actual = observed.get(name, values)
            # What was not yielded after an update is NaN, and so may be what was skipped.
            same = len(actual) == len(values) and all(
                agrees(e, a, bound) or np.isnan(a).all() or not np.isfinite(e).all()
                for e, a, bound in zip(values, actual, bounds, strict=True)
            )
            if not same:
                found.append(name)
        return found


def in_floats(problem: Problem, stages: Stages) -> Iterator[Array]:
    """W above b after each update, in float64; raises one of FAILURES where the loop fails.

    NumPy is quiet only while it computes. A generator that is left in the middle of a context ends
    it when it is collected, in the middle of whatever runs then; Python 3.11 can die of that.
    """
    updates = loop.run(problem, "float64", stages)
    while True:
        with np.errstate(all="ignore"):
            found = next(updates, None)
        if found is None:
            return
        yield found.theta


@lru_cache(maxsize=1024)
def replays(probe: Probe, stages: Stages = STAGES) -> Replays:
    """The replays of a set of stages, kept: the correct loop's are the same for all ports."""
    return Replays(probe, stages)


def agrees(expected: Array, actual: Array, bound: Any) -> bool:
    """Whether all numbers are inside the bound, or neither array is finite.

    Which numbers of an update that is not finite are so hangs on the order of the operations.
    """
    if not np.isfinite(expected).all() and not np.isfinite(actual).all():
        return True
    with np.errstate(invalid="ignore"):
        inside = abs(expected - actual) <= bound
    return bool(inside.all())


def split(numbers: Array) -> tuple[Array, Array]:
    """The values of numbers that carry their error, and the bounds; plain numbers have none."""
    value = np.array([float(n) for n in numbers.flat]).reshape(numbers.shape)
    error = np.array([getattr(n, "error", 0.0) for n in numbers.flat]).reshape(numbers.shape)
    return value, BOTH * error


def observations(
    problem: Problem, found: Sequence[Snapshot]
) -> dict[str, tuple[list[Array], list[Array]]]:
    """What a port can offer beside W and b, by name: arrays like W above b, and their bounds."""
    shape = (len(problem.W) + 1, len(problem.b))

    def spread(numbers: Sequence[Any]) -> list[tuple[Array, Array]]:
        return [split(np.broadcast_to(np.array(each, dtype=object), shape)) for each in numbers]

    each = {
        "gradient": spread([snapshot.gradient for snapshot in found]),
        "learning_rate": spread([snapshot.learning_rate for snapshot in found]),
        "loss": spread([snapshot.loss for snapshot in found]),
    }
    for name in found[0].state if found else ():
        each[name] = spread([snapshot.state[name] for snapshot in found])
    return {name: ([v for v, _ in pairs], [b for _, b in pairs]) for name, pairs in each.items()}


def merged(one: Stages, other: Stages) -> Stages | None:
    """Both sets of replaced stages in one loop; None where they replace the same stage.

    Settings are read one after the other.
    """
    mine, theirs = dict(one.replaced), dict(other.replaced)
    if "settings" in mine and "settings" in theirs:
        first, second = mine.pop("settings"), theirs.pop("settings")
        # Each probe's are read for every set of stages, and checking a problem takes time.
        mine["settings"] = lru_cache(maxsize=None)(lambda problem: second(first(problem)))
    if set(mine) & set(theirs):
        return None
    return replace(STAGES, **mine, **theirs)
