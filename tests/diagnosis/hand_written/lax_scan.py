"""One compiled function an update: lax.scan over the window, padded with rows of weight zero."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

jax.config.update("jax_enable_x64", True)


def pad(window, k, rows):
    """Stack a window as (k, rows, ...) arrays, and a mask of the rows that are real."""
    (x, y), dtype = window[0], window[0][0].dtype
    xs = np.zeros((k, rows, x.shape[1]), dtype)
    ys = np.zeros((k, rows, y.shape[1]), dtype)
    mask = np.zeros((k, rows), dtype)
    for i, (x, y) in enumerate(window):
        xs[i, : len(x)], ys[i, : len(y)], mask[i, : len(x)] = x, y, 1
    return xs, ys, mask


def masked_loss(params, x, y, mask):
    W, b = params
    return jnp.sum(mask * jnp.sum((x @ W + b - y) ** 2, axis=1))


def window_gradient(params, xs, ys, mask):
    def body(total, micro_batch):
        g = jax.grad(masked_loss)(params, *micro_batch)
        return jax.tree.map(jnp.add, total, g), None

    zeros = jax.tree.map(jnp.zeros_like, params)
    total, _ = lax.scan(body, zeros, (xs, ys, mask))
    return jax.tree.map(lambda g: g / mask.sum(), total)


def clip(grads, max_norm):
    norm = jnp.sqrt(sum(jnp.vdot(g, g) for g in grads))
    return lax.cond(
        norm > max_norm,
        lambda g: jax.tree.map(lambda x: x / norm * max_norm, g),
        lambda g: g,
        grads,
    )


@partial(jax.jit, static_argnames=("cfg", "max_norm"))
def update(params, state, xs, ys, mask, lr, cfg, max_norm):
    g = window_gradient(params, xs, ys, mask)
    if max_norm is not None:
        g = clip(g, max_norm)
    m, v, t = state
    t = t + 1
    if cfg.name == "sgd":
        g = jax.tree.map(lambda g, p: g + cfg.weight_decay * p, g, params)
        m = jax.tree.map(lambda m, g: cfg.momentum * m + g, m, g)
        return jax.tree.map(lambda p, m: p - lr * m, params, m), (m, v, t)
    b1, b2 = cfg.betas
    m = jax.tree.map(lambda m, g: b1 * m + (1 - b1) * g, m, g)
    v = jax.tree.map(lambda v, g: b2 * v + (1 - b2) * g**2, v, g)

    def move(p, m, v):
        p = p * (1 - lr * cfg.weight_decay)
        return p - lr * (m / (1 - b1**t)) / (jnp.sqrt(v / (1 - b2**t)) + cfg.eps)

    return jax.tree.map(move, params, m, v), (m, v, t)


def train(problem):
    if not problem.uses_only("learning_rates", "max_norm"):
        raise NotImplementedError("the settings of a recipe")
    cfg = problem.optimizer
    coupled = cfg.name == "adam" and cfg.weight_decay
    if cfg.name not in ("sgd", "adam", "adamw") or cfg.amsgrad or coupled:
        raise NotImplementedError(f"{cfg.name} with these settings")
    if cfg.nesterov or cfg.dampening:
        raise NotImplementedError("plain momentum only")
    params = (jnp.asarray(problem.W), jnp.asarray(problem.b))
    zeros = jax.tree.map(jnp.zeros_like, params)
    state = (zeros, zeros, jnp.zeros((), problem.dtype))
    k = problem.accumulation_steps
    rows = max(len(x) for x, _ in problem.micro_batches)
    starts = range(0, len(problem.micro_batches), k)
    windows = [pad(problem.micro_batches[s : s + k], k, rows) for s in starts]
    rates = problem.learning_rates or [cfg.learning_rate] * (len(windows) * problem.epochs)
    for window, rate in zip(windows * problem.epochs, rates):
        params, state = update(params, state, *window, rate, cfg, problem.max_norm)
        yield tuple(map(np.asarray, params))
