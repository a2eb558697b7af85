"""The question itself: what happens when gradients are never cleared, in every framework."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lockstep import mistakes
from lockstep.oracle import loop, rounding
from lockstep.oracle.compare import Comparison, compare_bits, compare_bounds
from lockstep.problem import Array, Problem, hadamard, iris_sgd
from lockstep.workers.folders import TemporaryFolder
from lockstep.workers.pool import Worker, importing, train_in_all

MISTAKE = "missing-zero-grad"
# Found by running them: at the first the loss without zeroing rises, at the second it falls.
LEARNING_RATES = (0.01, 0.0005)
UPDATES = 40


@dataclass(frozen=True)
class Trial:
    """One learning rate: the losses and comparisons with and without zeroing."""

    learning_rate: float
    losses_with: Mapping[str, list[float]]
    losses_without: Mapping[str, list[float]]
    comparisons_with: Mapping[str, Comparison]
    comparisons_without: Mapping[str, Comparison]

    @property
    def comparisons(self) -> list[Comparison]:
        """All comparisons of both."""
        return [*self.comparisons_with.values(), *self.comparisons_without.values()]

    def as_json(self) -> dict[str, Any]:
        """The losses, as JSON."""
        return {
            "learning_rate": self.learning_rate,
            "losses_with": dict(self.losses_with),
            "losses_without": dict(self.losses_without),
        }

    @property
    def outcome(self) -> str:
        """What the loss does without zeroing, in every framework, from update 1 to the last."""
        runs = self.losses_without.values()
        if all(losses[-1] > losses[0] for losses in runs):
            return "rises"
        if all(losses[-1] < losses[0] for losses in runs):
            return "falls all the same"
        return "rises in one framework and falls in another"


@contextmanager
def planted(workers: Mapping[str, Worker]) -> Iterator[dict[str, str]]:
    """The port without zeroing of each framework, importable in its worker."""
    with (
        TemporaryFolder() as folder,
        importing(folder, workers),
    ):
        yield {name: f"{mistakes.plant(MISTAKE, name, Path(folder))}.training" for name in workers}


def trial(workers: Mapping[str, Worker], ports: Mapping[str, str], learning_rate: float) -> Trial:
    """Train on Iris, a micro-batch an update, with and without zeroing.

    Both are held against the oracle. Without zeroing, K = 1 is momentum 1 in exact arithmetic,
    whose rounding bounds are therefore the ones to apply.
    """
    problem = iris_sgd(accumulation_steps=1, updates=UPDATES, learning_rate=learning_rate)
    same = iris_sgd(
        accumulation_steps=1, updates=UPDATES, learning_rate=learning_rate, momentum=1.0
    )
    right = loop.trajectory(problem, "decimal")
    wrong = loop.trajectory(problem, "decimal", mistakes.load(MISTAKE).stages)
    correct = train(workers, {name: f"{name}_impl.training" for name in workers}, problem)
    mistaken = train(workers, ports, problem)
    right_bounds = list(rounding.rounding_bounds(problem, right))
    wrong_bounds = list(rounding.rounding_bounds(same, wrong))
    return Trial(
        learning_rate,
        losses(correct, problem),
        losses(mistaken, problem),
        {name: compare_bounds(right, run, right_bounds) for name, run in correct.items()},
        {name: compare_bounds(wrong, run, wrong_bounds) for name, run in mistaken.items()},
    )


def momentum_equality(
    workers: Mapping[str, Worker], ports: Mapping[str, str], dtype: str = "float64"
) -> dict[str, Comparison]:
    """Compare, in bits, the exact problem without zeroing and with zeroing and momentum 1.

    Both are held against the oracle of the mistake, and so against each other: the comparison
    counts the numbers of both.
    """
    problem, momentum = hadamard(dtype), hadamard(dtype, momentum=1.0)
    expected = loop.trajectory(problem, "fraction", mistakes.load(MISTAKE).stages)
    expected = expected[: rounding.exact_updates(momentum, expected)]
    count = len(expected)
    without = train(workers, ports, problem)
    equivalent = train(workers, {name: f"{name}_impl.training" for name in workers}, momentum)
    return {
        name: compare_bits(
            [*expected, *expected], [*without[name][:count], *equivalent[name][:count]]
        )
        for name in workers
    }


def train(
    workers: Mapping[str, Worker], ports: Mapping[str, str], problem: Problem
) -> dict[str, list[Array]]:
    """The trajectories of the same problem in every worker."""
    return {name: run for name, (run, _) in train_in_all(workers, ports, problem).items()}


def losses(runs: Mapping[str, list[Array]], problem: Problem) -> dict[str, list[float]]:
    """The objective over an epoch after every update of each run."""
    return {name: [loop.loss(theta, problem) for theta in run] for name, run in runs.items()}
