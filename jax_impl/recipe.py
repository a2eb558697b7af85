"""The whole fine-tuning loop, on top of the plain one.

Decay groups, a schedule counted in updates, clipping after
accumulation, ragged and weighted windows, low precision with
a loss scale, windows that are not finite. A window that
is skipped takes no update, and no rate of the schedule.
(MultiSteps would skip a micro-step, not its window.)
"""

from collections.abc import Iterator, Sequence
from typing import Any

import optax

from .accumulation import apply_gradients
from .data import (
    Parameters,
    Weighted,
    load_weighted,
    snapshot,
    windows_of_run,
)
from .optimizers import make_optimizer
from .precision import in_float64
from .problem import Problem
from .progress import Progress
from .safeguards import clip, global_norm, usable
from .state import optimizer_state
from .window import weighted_gradient

# What a person would log.
Counts = dict[str, Any]


def update_or_skip(
    parameters: Parameters,
    state: optax.OptState,
    optimizer: optax.GradientTransformation,
    window: Sequence[Weighted],
    progress: Progress,
) -> tuple[Parameters, optax.OptState, Counts]:
    """Return both one update later, its loss and its norm."""
    problem = progress.problem
    dtype = problem.compute_dtype
    loss, gradients = weighted_gradient(
        parameters, window, progress.scale, dtype
    )
    norm = global_norm(gradients)
    if usable(norm, problem.non_finite, progress.updates):
        clipped = clip(gradients, norm, problem.max_norm)
        parameters, state = apply_gradients(
            parameters, state, optimizer, clipped
        )
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
    for window in windows_of_run(epoch, problem):
        parameters, state, seen = update_or_skip(
            parameters, state, optimizer, window, progress
        )
        shown = optimizer_state(
            parameters, state, problem.optimizer.name
        )
        shown |= seen | progress.counts()
        yield [*snapshot(parameters), shown]
