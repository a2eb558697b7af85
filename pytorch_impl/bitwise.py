"""The same loop, in a form that every framework rounds alike.

Nothing is left to choose: micro-batches of one example, so
that accumulation fixes the order of summation; explicit sums
instead of matrix products; elementary operations with numbers
from the host instead of a library's fused optimizer. Only
below the normal range, where some flush to zero, bits differ.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .adam import Moments
from .constants import Numbers, constants
from .data import Batch, Parameters, load, snapshot, windows
from .ordered import ordered_clip, ordered_model
from .problem import Problem
from .rules import find_rule, zeros
from .schedule import learning_rates

Function = Callable[..., Any]


def ordered_gradient(
    parameters: Parameters,
    window: Sequence[Batch],
    mean: float,
) -> Sequence[Tensor]:
    """Return the gradient of the window's mean loss."""
    for parameter in parameters:
        parameter.grad = None
    for x, y in window:
        prediction = ordered_model(x, *parameters)
        loss = (prediction - y).square().sum() * mean
        loss.backward()
    return [parameter.grad for parameter in parameters]


def ordered_update(
    rule: Function,
    parameters: Parameters,
    moments: list[Moments],
    window: Sequence[Batch],
    numbers: Numbers,
) -> list[Moments]:
    """Take one update in place; return the moments."""
    gradients = ordered_gradient(
        parameters, window, numbers["mean"]
    )
    if "max_norm" in numbers:
        gradients = ordered_clip(
            gradients, numbers["max_norm"]
        )
    new_moments = []
    with torch.no_grad():
        for p, g, m in zip(parameters, gradients, moments):
            new_p, new_m = rule(p, g, m, numbers)
            p.copy_(new_p)
            new_moments.append(new_m)
    return new_moments


def train(
    problem: Problem,
    compiler: Callable[[Function], Function] = lambda f: f,
) -> Iterator[list[np.ndarray]]:
    """Yield [W, b] as NumPy arrays after every update.

    Raises NotImplementedError as find_rule does.
    """
    rule = find_rule(problem)
    compiled = compiler(partial(ordered_update, rule))
    parameters, epoch = load(problem)
    moments = zeros(parameters)
    steps = problem.accumulation_steps
    run = problem.epochs * list(windows(epoch, steps))
    rates = learning_rates(problem)
    for update, window in enumerate(run):
        numbers = constants(
            problem, rates, update, len(window)
        )
        moments = compiled(
            parameters, moments, window, numbers
        )
        yield snapshot(parameters)
