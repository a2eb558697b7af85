"""recipe.py with each window one compiled program.

So is the choice not to take an update that is not finite.
The host reads the norm, once a window, to count updates.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array

from .accumulation import apply_gradients
from .data import Parameters, load_weighted, snapshot
from .loop import window_gradient
from .optimizers import make_optimizer
from .padding import padded_windows
from .precision import in_float64
from .problem import Problem
from .progress import Progress
from .recipe import Counts
from .safeguards import clip, global_norm, usable
from .state import optimizer_state


# Donated: the new takes the old's place in memory.
@partial(
    jax.jit,
    static_argnums=(2, 5, 6, 7),
    donate_argnums=(0, 1),
)
def train_window(
    parameters: Parameters,
    state: optax.OptState,
    optimizer: optax.GradientTransformation,
    window: Sequence[Array],
    scale: float | None,
    max_norm: float | None,
    non_finite: str,
    compute_dtype: str | None,
) -> tuple[Parameters, optax.OptState, Array, Array]:
    """Return both one update later, the loss and the norm."""
    loss, gradients = window_gradient(
        parameters, window, scale, compute_dtype
    )
    norm = global_norm(gradients)
    old = parameters, state
    gradients = clip(gradients, norm, max_norm)
    new = apply_gradients(*old, optimizer, gradients)
    take = jnp.isfinite(norm) | (non_finite == "apply")
    choose = partial(jnp.where, take)
    parameters, state = jax.tree.map(choose, new, old)
    return parameters, state, loss, norm


def update_or_skip(
    parameters: Parameters,
    state: optax.OptState,
    optimizer: optax.GradientTransformation,
    window: Sequence[Array],
    progress: Progress,
) -> tuple[Parameters, optax.OptState, Counts]:
    """Return both one update later, its loss and its norm."""
    problem = progress.problem
    scale = progress.scale if problem.loss_scale else None
    static: Any = problem.max_norm, problem.non_finite
    static += (problem.compute_dtype,)
    parameters, state, loss, norm = train_window(
        parameters, state, optimizer, window, scale, *static
    )
    if usable(norm, problem.non_finite, progress.updates):
        progress.advance()
    else:
        progress.skip()
    return parameters, state, {"loss": loss, "norm": norm}


@in_float64
def train(problem: Problem) -> Iterator[list[Any]]:
    """Yield [W, b, state], in NumPy, after every window.

    Raises FloatingPointError as `usable` does.
    """
    parameters, epoch = load_weighted(problem)
    optimizer = make_optimizer(parameters, problem)
    state = optimizer.init(parameters)
    progress = Progress(problem)
    for window in padded_windows(epoch, problem):
        parameters, state, seen = update_or_skip(
            parameters, state, optimizer, window, progress
        )
        shown = optimizer_state(
            parameters, state, problem.optimizer.name
        )
        shown |= seen | progress.counts()
        yield [*snapshot(parameters), shown]
