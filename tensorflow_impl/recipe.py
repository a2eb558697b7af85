"""The whole fine-tuning loop, on top of the plain one.

Decay groups, a schedule counted in updates, clipping after
accumulation, ragged and weighted windows, low precision with
a loss scale, windows that are not finite.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import tensorflow as tf
from keras.optimizers import Optimizer

from .data import (
    Parameters,
    Weighted,
    load_weighted,
    run_windows,
    snapshot,
)
from .optimizers import make_optimizer
from .progress import Progress
from .safeguards import clip, usable
from .state import optimizer_state
from .window import window_gradient


def take_update(
    parameters: Parameters,
    optimizer: Optimizer,
    gradients: Sequence[tf.Tensor],
) -> None:
    """Take one update in place; Keras looks up the rate."""
    optimizer.apply_gradients(zip(gradients, parameters))


def train_window(
    parameters: Parameters,
    optimizer: Optimizer,
    window: Sequence[Weighted],
    progress: Progress,
) -> None:
    """Take one update in place, or leave all as it is."""
    problem = progress.problem
    gradients = window_gradient(
        parameters,
        window,
        progress.scale,
        problem.compute_dtype,
    )
    if not usable(gradients, progress):
        progress.skip()
        return
    gradients = clip(gradients, problem.max_norm)
    take_update(parameters, optimizer, gradients)
    progress.advance()


def train(problem: Any) -> Iterator[list[Any]]:
    """Yield [W, b, state], in NumPy, after every window.

    Raises FloatingPointError as `usable` does.
    """
    parameters, epoch = load_weighted(problem)
    optimizer = make_optimizer(parameters, problem)
    progress = Progress(problem)
    for window in run_windows(epoch, problem):
        train_window(parameters, optimizer, window, progress)
        state = optimizer_state(parameters, optimizer)
        state |= progress.counts()
        yield [*snapshot(parameters), state]
