"""The whole fine-tuning loop, on top of the plain one.

Decay groups, a schedule counted in updates, clipping after
accumulation, ragged and weighted windows, low precision with
a loss scale, windows that are not finite.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import jax
import optax
from jax import Array

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


@partial(jax.jit, static_argnames="optimizer")
def take_update(
    parameters: Parameters,
    state: optax.OptState,
    optimizer: optax.GradientTransformation,
    gradients: Sequence[Array],
) -> tuple[Parameters, optax.OptState]:
    """Return both one update later, at optax's rate."""
    updates, state = optimizer.update(
        gradients, state, parameters
    )
    return optax.apply_updates(parameters, updates), state


def train_window(
    parameters: Parameters,
    state: optax.OptState,
    optimizer: optax.GradientTransformation,
    window: Sequence[Weighted],
    progress: Progress,
) -> tuple[Parameters, optax.OptState]:
    """Return both one update later, or as they are."""
    problem = progress.problem
    gradients = window_gradient(
        parameters,
        window,
        progress.scale,
        problem.compute_dtype,
    )
    if not usable(gradients, progress):
        progress.skip()
        return parameters, state
    gradients = clip(gradients, problem.max_norm)
    progress.advance()
    return take_update(
        parameters, state, optimizer, gradients
    )


def train(problem: Any) -> Iterator[list[Any]]:
    """Yield [W, b, state], in NumPy, after every window.

    Raises FloatingPointError as `usable` does.
    """
    parameters, epoch = load_weighted(problem)
    optimizer = make_optimizer(parameters, problem)
    state = optimizer.init(parameters)
    progress = Progress(problem)
    name = problem.optimizer.name
    for window in run_windows(epoch, problem):
        parameters, state = train_window(
            parameters, state, optimizer, window, progress
        )
        shown = optimizer_state(parameters, state, name)
        shown |= progress.counts()
        yield [*snapshot(parameters), shown]
