"""Data sets to train on, and the problems that are made of them."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from dataclasses import replace
from importlib import resources

import numpy as np

from lockstep.problem.problem import Array, MicroBatch, Problem
from lockstep.problem.settings import Optimizer, Schedule, require


def iris_examples() -> MicroBatch:
    """Fisher's Iris in a fixed shuffled order: x (150, 4) in centimetres, y (150, 3) one-hot."""
    text = resources.files("lockstep.problem").joinpath("data/iris.csv").read_text()
    rows = list(csv.DictReader(line for line in text.splitlines() if not line.startswith("#")))
    *features, label = rows[0]
    x = np.array([[float(row[name]) for name in features] for row in rows])
    species = sorted({row[label] for row in rows})
    y = np.eye(len(species))[[species.index(row[label]) for row in rows]]
    order = np.random.default_rng(1936).permutation(len(x))  # the year of Fisher's paper
    return x[order], y[order]


def split(x: Array, y: Array, sizes: Sequence[int]) -> list[MicroBatch]:
    """Cut the examples into micro-batches of these sizes, in order."""
    ends = np.cumsum(sizes)[:-1]
    return list(zip(np.split(x, ends), np.split(y, ends), strict=True))


def epochs_for(updates: int, micro_batches: int, accumulation_steps: int) -> int:
    """The epochs that hold at least so many updates."""
    return math.ceil(updates / math.ceil(micro_batches / accumulation_steps))


def iris_adamw(dtype: str = "float64", accumulation_steps: int = 15, updates: int = 100) -> Problem:
    """Iris one example a micro-batch, as `bitwise.py` needs it, trained with AdamW."""
    x, y = iris_examples()
    return Problem(
        np.zeros((4, 3)),
        np.zeros(3),
        split(x, y, [1] * len(x)),
        epochs=epochs_for(updates, len(x), accumulation_steps),
        accumulation_steps=accumulation_steps,
        optimizer=Optimizer("adamw", learning_rate=0.01, weight_decay=0.01),
        dtype=dtype,
    )


def iris_sgd(
    dtype: str = "float64",
    accumulation_steps: int = 2,
    updates: int = 30,
    learning_rate: float = 0.01,
    momentum: float = 0.0,
) -> Problem:
    """Iris in 5 micro-batches of 20 to 40 examples; K = 2 leaves a partial window of one."""
    x, y = iris_examples()
    sizes = [20, 40, 20, 40, 30]
    return Problem(
        np.zeros((4, 3)),
        np.zeros(3),
        split(x, y, sizes),
        epochs=epochs_for(updates, len(sizes), accumulation_steps),
        accumulation_steps=accumulation_steps,
        optimizer=Optimizer("sgd", learning_rate=learning_rate, momentum=momentum),
        dtype=dtype,
    )


def iris_recipe(dtype: str = "float64", accumulation_steps: int = 2, updates: int = 30) -> Problem:
    """The fine-tuning recipe that people port, on the same micro-batches."""
    problem = iris_sgd(dtype, accumulation_steps, updates)
    return replace(
        problem,
        optimizer=Optimizer("adamw", learning_rate=0.05, weight_decay=0.1),
        schedule=Schedule(problem.updates, warmup=problem.updates // 10, decay="cosine"),
        decay_bias=False,
        max_norm=1.0,
    )


def hadamard(
    dtype: str = "float64",
    accumulation_steps: int = 2,
    updates: int = 48,
    momentum: float = 0.0,
) -> Problem:
    """The exact problem: no float rounds, so any order of summation gives the same bits.

    x holds four columns of an 8x8 Hadamard matrix, whose constant column is the bias, and y the
    targets of an integer solution. The columns are orthogonal, so learning rate 1/4 halves the
    distance to the solution in every update, which costs one bit. One window is the whole epoch:
    K micro-batches of unequal size that share the eight examples.
    """
    require(
        1 <= accumulation_steps <= 8,
        f"accumulation_steps: the exact problem has 8 examples, so K must be 1 to 8,"
        f" not {accumulation_steps}",
    )
    two = np.array([[1, 1], [1, -1]])
    x = np.kron(np.kron(two, two), two)[:, 1:5]
    solution = np.array([[1, -1, 0], [0, 1, -1], [-1, 0, 1], [1, 0, -1]])
    y = x @ solution + [1, 0, -1]
    sizes = [1] * (accumulation_steps - 1) + [9 - accumulation_steps]
    return Problem(
        np.array([[0, 1, -1], [1, 0, 0], [0, -1, 1], [-1, 0, 0]]),
        np.array([0, 1, 0]),
        split(x, y, sizes),
        epochs=updates,
        accumulation_steps=accumulation_steps,
        optimizer=Optimizer("sgd", learning_rate=0.25, momentum=momentum),
        dtype=dtype,
    )
