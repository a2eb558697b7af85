"""A port as somebody might hand it in: plain NumPy, SGD and Adam. Tests break it in many ways."""

import numpy as np


def train(problem):
    if not problem.uses_only("learning_rates", "max_norm"):
        raise NotImplementedError("the settings of a recipe")
    settings = problem.optimizer
    if settings.name not in ("sgd", "adam") or settings.momentum or settings.weight_decay:
        raise NotImplementedError(f"no {settings.name} with these settings")
    if settings.amsgrad:
        raise NotImplementedError("no AMSGrad")
    parameters = [problem.W.copy(), problem.b.copy()]
    means = [np.zeros_like(p) for p in parameters]
    squares = [np.zeros_like(p) for p in parameters]
    update = 0
    for _ in range(problem.epochs):
        for start in range(0, len(problem.micro_batches), problem.accumulation_steps):
            window = problem.micro_batches[start : start + problem.accumulation_steps]
            examples = sum(len(x) for x, _ in window)
            sums = [np.zeros_like(p) for p in parameters]
            for x, y in window:
                error = 2 * (x @ parameters[0] + parameters[1] - y) / examples
                sums[0] += x.T @ error
                sums[1] += error.sum(axis=0)
            if problem.max_norm is not None:
                norm = np.sqrt(sum((s**2).sum() for s in sums))
                sums = [s * min(1.0, problem.max_norm / norm) for s in sums]
            rate = settings.learning_rate
            if problem.learning_rates is not None:
                rate = problem.learning_rates[update]
            update += 1
            for i, gradient in enumerate(sums):
                direction = gradient
                if settings.name == "adam":
                    beta1, beta2 = settings.betas
                    means[i] = beta1 * means[i] + (1 - beta1) * gradient
                    squares[i] = beta2 * squares[i] + (1 - beta2) * gradient**2
                    root = np.sqrt(squares[i] / (1 - beta2**update)) + settings.eps
                    direction = means[i] / (1 - beta1**update) / root
                parameters[i] = (parameters[i] - rate * direction).astype(problem.dtype)
            yield parameters[0], parameters[1]
