"""optax.microbatch: a window is one batch, cut into micro-batches inside the gradient function."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
from optax.microbatching import AccumulationType

jax.config.update("jax_enable_x64", True)


def loss_fn(params, x, y):
    return jnp.square(x @ params["W"] + params["b"] - y).sum(axis=1).mean()


def make_optimizer(problem):
    s, lr = problem.optimizer, problem.optimizer.learning_rate
    if problem.learning_rates is not None:
        lr = jnp.asarray(problem.learning_rates).__getitem__
    clip = optax.clip_by_global_norm(problem.max_norm) if problem.max_norm else optax.identity()
    if s.name == "sgd" and not (s.dampening or s.weight_decay):
        return optax.chain(clip, optax.sgd(lr, s.momentum or None, s.nesterov))
    if s.name == "adamw" and not s.amsgrad:
        return optax.chain(clip, optax.adamw(lr, *s.betas, s.eps, weight_decay=s.weight_decay))
    raise NotImplementedError("SGD without dampening or decay, and AdamW")


def train(problem):
    if not problem.uses_only("max_norm", "learning_rates"):
        raise NotImplementedError("clipping and learning rates alone")
    params = {"W": jnp.asarray(problem.W), "b": jnp.asarray(problem.b)}
    optimizer = make_optimizer(problem)
    state, k = optimizer.init(params), problem.accumulation_steps
    size = math.gcd(*(len(x) for x, _ in problem.micro_batches))
    gradient = optax.microbatch(jax.grad(loss_fn), (1, 2), size, AccumulationType.MEAN)

    @jax.jit
    def train_step(params, state, x, y):
        updates, state = optimizer.update(gradient(params, x, y), state, params)
        return optax.apply_updates(params, updates), state

    for _ in range(problem.epochs):
        for start in range(0, len(problem.micro_batches), k):
            xs, ys = zip(*problem.micro_batches[start : start + k])
            params, state = train_step(params, state, np.concatenate(xs), np.concatenate(ys))
            yield np.asarray(params["W"]), np.asarray(params["b"])
