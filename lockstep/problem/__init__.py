"""What to train on: data and settings, in NumPy and plain values.

It must know no loop and no framework.
"""

from lockstep.problem.datasets import (
    epochs_for,
    hadamard,
    iris_adamw,
    iris_examples,
    iris_recipe,
    iris_sgd,
    split,
)
from lockstep.problem.problem import (
    COMPUTE_DTYPES,
    DTYPES,
    LARGEST_RUN,
    NESTED,
    NON_FINITE,
    PARTIAL_WINDOWS,
    PLAIN,
    SETTINGS,
    Array,
    MicroBatch,
    Problem,
)
from lockstep.problem.settings import LossScale, Optimizer, ProblemError, Schedule

__all__ = [
    "COMPUTE_DTYPES",
    "DTYPES",
    "LARGEST_RUN",
    "NESTED",
    "NON_FINITE",
    "PARTIAL_WINDOWS",
    "PLAIN",
    "SETTINGS",
    "Array",
    "LossScale",
    "MicroBatch",
    "Optimizer",
    "Problem",
    "ProblemError",
    "Schedule",
    "epochs_for",
    "hadamard",
    "iris_adamw",
    "iris_examples",
    "iris_recipe",
    "iris_sgd",
    "split",
]
