"""recipe.py with each window one compiled program.

Only its update is not: a compiled optimizer would count its
updates in float32. PyTorch's fused kernels take it instead.
Without a C++ compiler, the program is window.py's loop.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from .compiler import can_compile, fuse, in_cpp
from .data import Parameters, load_weighted, snapshot
from .loop import window_gradient
from .optimizers import make_optimizer
from .padding import padded_windows
from .problem import Problem
from .progress import Progress
from .recipe import Counts, apply_gradients
from .safeguards import clip, global_norm, usable
from .state import optimizer_state
from .window import weighted_gradient


def clipped_gradient(
    parameters: Parameters,
    window: Sequence[Tensor],
    scale: Tensor | None,
    max_norm: float | None,
    compute_dtype: str | None,
) -> tuple[Tensor, Tensor, Sequence[Tensor]]:
    """Return a window's loss, norm, and clipped gradient."""
    if torch.compiler.is_compiling():
        loss, gradients = window_gradient(
            parameters, window, scale, compute_dtype
        )
    else:
        given = [*zip(*window)], float(scale or 1)
        loss, gradients = weighted_gradient(
            parameters, *given, compute_dtype
        )
    norm = global_norm(gradients)
    return loss, norm, clip(gradients, norm, max_norm)


def compiled(problem: Problem) -> Callable[..., Any]:
    """Compile clipped_gradient for a run, if that can be."""
    program = partial(
        clipped_gradient,
        max_norm=problem.max_norm,
        compute_dtype=problem.compute_dtype,
    )
    return in_cpp(program) if can_compile() else program


def update_or_skip(
    parameters: Parameters,
    optimizer: Optimizer,
    program: Callable[..., Any],
    window: Sequence[Tensor],
    progress: Progress,
) -> Counts:
    """Take one update in place; return its loss and norm."""
    optimizer.zero_grad()  # frees the last window's gradient
    problem, scale = progress.problem, None
    if problem.loss_scale:
        scale = parameters[0].new_tensor(progress.scale)
    loss, norm, gradients = program(parameters, window, scale)
    if usable(norm, problem.non_finite, progress.updates):
        apply_gradients(
            parameters, optimizer, gradients, progress.rate
        )
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
    program, progress = compiled(problem), Progress(problem)
    compiles, fused = can_compile(), fuse(optimizer)
    form = {"compiled": compiles, "fused": fused}
    for window in padded_windows(epoch, problem):
        seen = update_or_skip(
            parameters, optimizer, program, window, progress
        )
        state = optimizer_state(parameters, optimizer)
        state |= seen | progress.counts() | form
        yield [*snapshot(parameters), state]
