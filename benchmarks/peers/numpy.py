"""The plain loop in NumPy."""

from __future__ import annotations

import numpy as np

from benchmarks.peers import BETAS, EPS, RATE, Contestant
from lockstep.problem import Problem


def plain(problem: Problem) -> Contestant:
    """The loop that a person would write, and Adam as its paper has it."""
    W, b = parameters = [problem.W.copy(), problem.b.copy()]
    means, squares = ([np.zeros_like(p) for p in parameters] for _ in range(2))
    examples = sum(len(x) for x, _ in problem.micro_batches)
    count = 0

    def window() -> float:
        nonlocal count
        gradients, loss = [np.zeros_like(p) for p in parameters], 0.0
        for x, y in problem.micro_batches:
            error = x @ W + b - y
            loss += np.square(error).sum() / examples
            error *= 2 / examples
            gradients[0] += x.T @ error
            gradients[1] += error.sum(0)
        count += 1
        beta1, beta2 = BETAS
        for p, g, m, v in zip(parameters, gradients, means, squares, strict=True):
            m += (1 - beta1) * (g - m)
            v += (1 - beta2) * (g * g - v)
            p -= RATE / (1 - beta1**count) * m / (np.sqrt(v / (1 - beta2**count)) + EPS)
        return loss

    return Contestant(window, lambda: [W, b])


CONTESTANTS = {"NumPy": plain}
