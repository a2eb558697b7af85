"""The whole fine-tuning loop, on top of the plain one.

Decay groups, a schedule counted in updates, clipping after
accumulation, ragged and weighted windows, low precision with
a loss scale, windows that are not finite. A window that
is skipped takes no update, and no rate of the schedule.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import tensorflow as tf
from keras.optimizers import Optimizer

from .data import (
    Parameters,
    Weighted,
    load_weighted,
    snapshot,
    windows_of_run,
)
from .optimizers import make_optimizer
from .problem import Problem
from .progress import Progress
from .safeguards import clip, global_norm, usable
from .state import optimizer_state
from .window import weighted_gradient

# What a person would log.
Counts = dict[str, Any]


def apply_gradients(
    parameters: Parameters,
    optimizer: Optimizer,
    gradients: Sequence[tf.Tensor],
) -> None:
    """Take one update in place.

    Keras counts updates by itself, and looks the rate up.
    """
    optimizer.apply_gradients(zip(gradients, parameters))


def update_or_skip(
    parameters: Parameters,
    optimizer: Optimizer,
    window: Sequence[Weighted],
    progress: Progress,
) -> Counts:
    """Take one update in place; return its loss and norm."""
    problem = progress.problem
    dtype = problem.compute_dtype
    loss, gradients = weighted_gradient(
        parameters, window, progress.scale, dtype
    )
    norm = global_norm(gradients)
    if usable(norm, problem.non_finite, progress.updates):
        clipped = clip(gradients, norm, problem.max_norm)
        apply_gradients(parameters, optimizer, clipped)
        progress.advance()
    else:
        progress.skip()
    return {"loss": loss, "norm": norm}


def train(problem: Problem) -> Iterator[list[Any]]:
    """Yield [W, b, state], in NumPy, after every window.

    Raises FloatingPointError as `usable` does.
    """
    parameters, epoch = load_weighted(problem)
    optimizer = make_optimizer(parameters, problem)
    progress = Progress(problem)
    for window in windows_of_run(epoch, problem):
        seen = update_or_skip(
            parameters, optimizer, window, progress
        )
        state = optimizer_state(parameters, optimizer)
        state |= seen | progress.counts()
        yield [*snapshot(parameters), state]
