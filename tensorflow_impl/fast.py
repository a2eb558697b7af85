"""recipe.py with each window one compiled program.

So is the choice not to take an update that is not finite.
The host reads the norm, once a window, to count updates.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import tensorflow as tf
from keras.optimizers import Optimizer

from .compiler import in_xla
from .data import Parameters, load_weighted, snapshot
from .loop import window_gradient
from .optimizers import make_optimizer
from .padding import padded_windows
from .problem import Problem
from .progress import Progress
from .recipe import Counts, apply_gradients
from .safeguards import clip, global_norm, usable
from .state import optimizer_state

Program = Callable[..., tuple[tf.Tensor, tf.Tensor]]


def train_window(
    parameters: Parameters,
    optimizer: Optimizer,
    window: Sequence[tf.Tensor],
    scale: tf.Tensor | None,
    max_norm: float | None,
    non_finite: str,
    compute_dtype: str | None,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Take one update in place; return the loss and norm."""
    loss, gradients = window_gradient(
        parameters, window, scale, compute_dtype
    )
    norm = global_norm(gradients)
    clipped = clip(gradients, norm, max_norm)
    if tf.math.is_finite(norm) or non_finite == "apply":
        # Keras takes them from one graph, and this is one.
        clipped = [tf.identity(g) for g in clipped]
        apply_gradients(parameters, optimizer, clipped)
    return loss, norm


def compiled(
    parameters: Parameters,
    optimizer: Optimizer,
    problem: Problem,
) -> Program:
    """Compile train_window for a run."""

    def program(window: Any, scale: Any) -> Any:
        return train_window(
            parameters,
            optimizer,
            window,
            scale,
            problem.max_norm,
            problem.non_finite,
            problem.compute_dtype,
        )

    return in_xla(program, parameters, problem)


def update_or_skip(
    program: Program,
    window: Sequence[tf.Tensor],
    progress: Progress,
) -> Counts:
    """Take one update in place; return its loss and norm."""
    problem = progress.problem
    scale = progress.scale if problem.loss_scale else None
    loss, norm = program(window, scale)
    if usable(norm, problem.non_finite, progress.updates):
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
    program = compiled(parameters, optimizer, problem)
    progress = Progress(problem)
    for window in padded_windows(epoch, problem):
        seen = update_or_skip(program, window, progress)
        state = optimizer_state(parameters, optimizer)
        state |= seen | progress.counts()
        yield [*snapshot(parameters), state]
