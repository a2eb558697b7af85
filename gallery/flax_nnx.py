"""Flax NNX: nnx.Linear and nnx.Optimizer, the gradients of a window added up as a pytree."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

jax.config.update("jax_enable_x64", True)


def loss_fn(model, x, y):
    return optax.squared_error(model(x), y).sum(axis=1).mean()


@nnx.jit
def accumulate(model, total, x, y):
    return jax.tree.map(jnp.add, total, nnx.grad(loss_fn)(model, x, y))


@nnx.jit
def apply(model, optimizer, total, micro_steps):
    optimizer.update(model, jax.tree.map(lambda g: g / micro_steps, total))


def make_rule(problem):
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
    model = nnx.Linear(*problem.W.shape, param_dtype=problem.dtype, rngs=nnx.Rngs(0))
    model.kernel[...], model.bias[...] = problem.W, problem.b
    optimizer = nnx.Optimizer(model, make_rule(problem), wrt=nnx.Param)
    k, batches = problem.accumulation_steps, problem.micro_batches
    for _ in range(problem.epochs):
        for start in range(0, len(batches), k):
            window = batches[start : start + k]
            total = jax.tree.map(jnp.zeros_like, nnx.state(model, nnx.Param))
            for x, y in window:
                total = accumulate(model, total, x, y)
            apply(model, optimizer, total, len(window))
            yield np.array(model.kernel[...]), np.array(model.bias[...])
