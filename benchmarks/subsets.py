"""Mistakes in ports that support little: what no supported probe shows is called the same."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np

from lockstep import mistakes
from lockstep.diagnosis import check
from lockstep.diagnosis.forms import Form
from lockstep.diagnosis.probes import Probe, overflowing, probes, random_problem, rates
from lockstep.diagnosis.replay import FAILURES, in_floats, replays
from lockstep.optimizers.variants import VARIANTS
from lockstep.oracle import loop
from lockstep.oracle.loop import STAGES, Stages
from lockstep.problem import Array, Problem
from lockstep.problem.settings import LossScale, Schedule

FEATURES = (
    *("learning_rates", "max_norm", "schedule", "decay_bias"),
    *("example_weights", "partial_windows", "non_finite", "loss_scale"),
)
OPTIMIZERS = tuple(dict.fromkeys(each.name for each in VARIANTS.values()))
WINDOWS = ("any", "equal", "whole")
# Problems to find out whether a mistake shows in what a port supports.
POOL = 400
# Relative to the largest parameter: more than rounding makes of a few updates.
SHOWS = 1e-9


@dataclass(frozen=True)
class Subset:
    """What a port supports."""

    features: frozenset[str]
    optimizers: frozenset[str]
    windows: str

    def __str__(self) -> str:
        return f"{self.windows} windows, {', '.join(sorted(self.features | self.optimizers))}"

    def supports(self, problem: Problem) -> bool:
        """Whether a port takes a problem; micro-batches are equal, or fill their windows too."""
        sizes = {len(x) for x, _ in problem.micro_batches}
        whole = len(problem.micro_batches) % problem.accumulation_steps == 0
        return (
            problem.uses_only(*self.features)
            and problem.optimizer.name in self.optimizers
            and (self.windows == "any" or len(sizes) == 1)
            and (self.windows != "whole" or whole)
        )


def draw(rng: random.Random) -> Subset:
    """Some features, some optimizers, some windows."""
    share = rng.random()
    features = {each for each in FEATURES if rng.random() < share}
    if "loss_scale" in features:
        features.add("non_finite")
    optimizers = rng.sample(OPTIMIZERS, rng.randint(1, len(OPTIMIZERS)))
    return Subset(frozenset(features), frozenset(optimizers), rng.choice(WINDOWS))


def port(stages: Stages, subset: Subset) -> Callable[[Problem], Iterator[tuple[Array, Array]]]:
    """The loop with replaced stages as a port that supports a subset."""

    def train(problem: Problem) -> Iterator[tuple[Array, Array]]:
        if not subset.supports(problem):
            raise NotImplementedError("this port does not support it")
        for found in loop.snapshots(problem, stages=stages):
            yield found.theta[:-1], found.theta[-1]

    return train


def mutants() -> list[Form]:
    """Every way to make every mistake."""
    return [
        Form(name, stages, mistake)
        for name in mistakes.names()
        for mistake in [mistakes.load(name)]
        for stages in (mistake.stages, *mistake.forms)
    ]


def pool(seed: int) -> Iterator[Problem]:
    """Random problems, each with a few features."""
    rng = np.random.default_rng([seed, 7])
    for _ in range(POOL):
        k, windows = int(rng.integers(1, 5)), rng.choice(WINDOWS)
        count = k * int(rng.integers(1, 3)) if windows == "whole" else int(rng.integers(1, 8))
        sizes = rng.integers(1, 5, count)
        if windows != "any":
            sizes[:] = sizes[0]
        shape = {"outputs": int(rng.integers(1, 4)), "features": int(rng.integers(1, 6))}
        problem = random_problem(rng, sizes.tolist(), k, epochs=int(rng.integers(2, 4)), **shape)
        optimizer = VARIANTS[rng.choice(list(VARIANTS))]
        rate = max(optimizer.learning_rate, 0.01)
        problem = replace(problem, optimizer=replace(optimizer, learning_rate=rate))
        yield featured(problem, rng)


def featured(problem: Problem, rng: np.random.Generator) -> Problem:
    """A problem with some of the features, mostly with few of them."""
    has = {each: rng.random() < share for share in [rng.choice([0.0, 0.15, 0.4])]
           for each in FEATURES}  # fmt: skip
    change: dict[str, Any] = {}
    if has["max_norm"]:
        change["max_norm"] = float(rng.uniform(0.5, 5.0))
    if has["decay_bias"]:
        decayed = replace(problem.optimizer, weight_decay=0.1)
        change |= {"decay_bias": False, "optimizer": decayed}
    if has["example_weights"]:
        sizes = [len(x) for x, _ in problem.micro_batches]
        change["example_weights"] = [rng.integers(1, 5, size) / 2 for size in sizes]
    whole = problem.accumulation_steps <= len(problem.micro_batches)
    if has["partial_windows"] and whole:
        change["partial_windows"] = str(rng.choice(["drop", "carry"]))
    problem = replace(problem, **change)
    if has["learning_rates"]:
        problem = replace(problem, learning_rates=rates(problem))
    elif has["schedule"]:
        decay = str(rng.choice(["constant", "linear", "cosine"]))
        updates = problem.updates + int(rng.integers(0, 9))
        problem = replace(problem, schedule=Schedule(updates, int(rng.integers(0, 3)), decay))
    if has["non_finite"] or has["loss_scale"]:
        problem = overflowing(problem, int(rng.integers(len(problem.micro_batches))))
    if has["loss_scale"]:
        problem = replace(problem, loss_scale=LossScale(1024.0, 2))
    return problem


class Trials:
    """Mutants, and on which problems and probes they show: each is looked at once."""

    def __init__(self, seed: int) -> None:
        """Draw the problems."""
        self.pool = [(problem, floats(problem, STAGES)) for problem in pool(seed)]
        self.rng = random.Random(seed)
        self.mutants = mutants()
        self.shows = cache(self._shows)
        self.caught = cache(self._caught)

    def draw(self, count: int) -> Iterator[tuple[Form, Subset]]:
        """So many mutants that show on some problem of a subset."""
        while count:
            form, subset = self.rng.choice(self.mutants), draw(self.rng)
            problems = (i for i, (each, _) in enumerate(self.pool) if subset.supports(each))
            if any(self.shows(form, index) for index in problems):
                count -= 1
                yield form, subset

    def same(self, form: Form, subset: Subset) -> bool:
        """Whether a check says "same": it does not if a probe that is supported shows the mutant.

        Only where none does is there anything more to drive.
        """
        if any(self.caught(form, each) for each in probes() if subset.supports(each.problem)):
            return False
        return check(port(form.stages, subset)).verdict == "same"

    def _shows(self, form: Form, index: int) -> bool:
        """Whether a mutant changes the update on a problem of the pool."""
        problem, right = self.pool[index]
        found = floats(problem, form.stages)
        if right is None or found is None:
            return False
        return len(found) != len(right) or any(map(apart, found, right))

    def _caught(self, form: Form, probe: Probe) -> bool:
        """Whether a probe shows a mutant."""
        found = floats(probe.problem, form.stages)
        return found is None or not replays(probe).reproduces(found)


def floats(problem: Problem, stages: Stages) -> Sequence[Array] | None:
    """A trajectory in float64; None where the loop fails."""
    try:
        return list(in_floats(problem, stages))
    except FAILURES:
        return None


def apart(one: Array, other: Array) -> bool:
    """Whether two updates differ by more than rounding; what is not finite is no update."""
    if not (np.isfinite(one).all() and np.isfinite(other).all()):
        return bool((np.isfinite(one) != np.isfinite(other)).any())
    return bool(abs(one - other).max() > SHOWS * max(abs(other).max(), 1e-300))
