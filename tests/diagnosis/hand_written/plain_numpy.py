"""Everything by hand: least squares has a gradient that fits on one line."""

import numpy as np


class SGD:
    def __init__(self, cfg, shapes):
        self.cfg = cfg
        self.velocity = None

    def step(self, params, grads, lr):
        c = self.cfg
        grads = [g + c.weight_decay * p for p, g in zip(params, grads)]
        if c.momentum:
            if self.velocity is None:
                self.velocity = [g.copy() for g in grads]
            else:
                for v, g in zip(self.velocity, grads):
                    v *= c.momentum
                    v += (1 - c.dampening) * g
            if c.nesterov:
                grads = [g + c.momentum * v for v, g in zip(self.velocity, grads)]
            else:
                grads = self.velocity
        for p, g in zip(params, grads):
            p -= lr * g


class Adam:
    def __init__(self, cfg, shapes):
        if cfg.amsgrad:
            raise NotImplementedError("amsgrad")
        self.cfg, self.t = cfg, 0
        self.m = [np.zeros(*shape) for shape in shapes]
        self.v = [np.zeros(*shape) for shape in shapes]

    def step(self, params, grads, lr):
        c = self.cfg
        (beta1, beta2), self.t = c.betas, self.t + 1
        for p, g, m, v in zip(params, grads, self.m, self.v):
            if c.name == "adam":
                g = g + c.weight_decay * p
            m += (1 - beta1) * (g - m)
            v += (1 - beta2) * (g * g - v)
            m_hat = m / (1 - beta1**self.t)
            v_hat = v / (1 - beta2**self.t)
            if c.name == "adamw":
                p *= 1 - lr * c.weight_decay
            p -= lr * m_hat / (np.sqrt(v_hat) + c.eps)


OPTIMIZERS = {"sgd": SGD, "adam": Adam, "adamw": Adam}


def train(problem):
    if not problem.uses_only("learning_rates", "max_norm"):
        raise NotImplementedError("the settings of a recipe")
    if problem.optimizer.name not in OPTIMIZERS:
        raise NotImplementedError(problem.optimizer.name)
    W, b = problem.W.copy(), problem.b.copy()
    shapes = [(p.shape, p.dtype) for p in (W, b)]
    optimizer = OPTIMIZERS[problem.optimizer.name](problem.optimizer, shapes)
    update = 0
    for _ in range(problem.epochs):
        pending = list(problem.micro_batches)
        while pending:
            window = pending[: problem.accumulation_steps]
            pending = pending[problem.accumulation_steps :]
            dW, db, n = np.zeros_like(W), np.zeros_like(b), 0
            for x, y in window:
                error = x @ W + b - y
                dW += 2 * x.T @ error
                db += 2 * error.sum(axis=0)
                n += len(x)
            dW /= n
            db /= n
            if problem.max_norm is not None:
                norm = np.sqrt((dW**2).sum() + (db**2).sum())
                if norm > problem.max_norm:
                    dW *= problem.max_norm / norm
                    db *= problem.max_norm / norm
            lr = problem.optimizer.learning_rate
            if problem.learning_rates is not None:
                lr = problem.learning_rates[update]
            optimizer.step([W, b], [dW, db], lr)
            update += 1
            yield W.copy(), b.copy()
