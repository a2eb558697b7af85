"""No modules and no .grad: torch.func gives a gradient per example, and tensors are replaced."""

import torch
from torch.func import grad, vmap


def loss(params, x, y):
    return torch.sum((x @ params["w"] + params["b"] - y) ** 2)


per_example = vmap(grad(loss), in_dims=(None, 0, 0))


def zeros_like(tree):
    return {name: torch.zeros_like(leaf) for name, leaf in tree.items()}


def windows(batches, k):
    while batches:
        yield batches[:k]
        batches = batches[k:]


def mean_gradient(params, window):
    total, n = zeros_like(params), 0
    for x, y in window:
        grads = per_example(params, x, y)
        total = {name: total[name] + grads[name].sum(0) for name in total}
        n += x.shape[0]
    return {name: g / n for name, g in total.items()}


def clip(grads, max_norm):
    norm = torch.sqrt(sum(torch.sum(g * g) for g in grads.values()))
    factor = torch.clamp(max_norm / norm, max=1.0)
    return {name: g * factor for name, g in grads.items()}


def sgd(cfg):
    def init(params):
        return None

    def update(p, g, buf, lr):
        g = {name: g[name] + cfg.weight_decay * p[name] for name in g}
        if cfg.momentum == 0:
            return {name: p[name] - lr * g[name] for name in p}, None
        if buf is None:
            buf = g
        else:
            buf = {name: cfg.momentum * buf[name] + (1 - cfg.dampening) * g[name] for name in buf}
        d = buf
        if cfg.nesterov:
            d = {name: g[name] + cfg.momentum * buf[name] for name in g}
        return {name: p[name] - lr * d[name] for name in p}, buf

    return init, update


def rmsprop(cfg):
    if cfg.momentum or cfg.centered or cfg.weight_decay:
        raise NotImplementedError("plain RMSprop only")

    def update(p, g, v, lr):
        v = {name: cfg.alpha * v[name] + (1 - cfg.alpha) * g[name] ** 2 for name in v}
        return {name: p[name] - lr * g[name] / (v[name].sqrt() + cfg.eps) for name in p}, v

    return zeros_like, update


def train(problem):
    if not problem.uses_only("learning_rates", "max_norm"):
        raise NotImplementedError("the settings of a recipe")
    rules = {"sgd": sgd, "rmsprop": rmsprop}
    if problem.optimizer.name not in rules:
        raise NotImplementedError(problem.optimizer.name)
    init, update = rules[problem.optimizer.name](problem.optimizer)
    params = {"w": torch.from_numpy(problem.W.copy()), "b": torch.from_numpy(problem.b.copy())}
    data = [
        (torch.from_numpy(x.copy()), torch.from_numpy(y.copy())) for x, y in problem.micro_batches
    ]
    state, step = init(params), 0
    for _ in range(problem.epochs):
        for window in windows(data, problem.accumulation_steps):
            grads = mean_gradient(params, window)
            if problem.max_norm is not None:
                grads = clip(grads, problem.max_norm)
            lrs = problem.learning_rates
            lr = problem.optimizer.learning_rate if lrs is None else lrs[step]
            params, state = update(params, grads, state, lr)
            step += 1
            yield params["w"].numpy(), params["b"].numpy()
