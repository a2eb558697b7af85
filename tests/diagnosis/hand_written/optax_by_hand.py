"""optax for the rule only: params are a dict, gradients are summed with tree.map."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax

jax.config.update("jax_enable_x64", True)


def predict(params, inputs):
    return inputs @ params["kernel"] + params["bias"]


@jax.jit
def summed_grads(params, inputs, targets):
    def fn(params):
        return optax.squared_error(predict(params, inputs), targets).sum()

    return jax.grad(fn)(params)


@partial(jax.jit, static_argnames="tx")
def apply(tx, params, opt_state, grads):
    updates, opt_state = tx.update(grads, opt_state, params)
    return optax.apply_updates(params, updates), opt_state


@jax.jit
def clip_by_norm(grads, max_norm):
    norm = jnp.sqrt(sum(jnp.vdot(g, g) for g in jax.tree.leaves(grads)))
    scale = max_norm / jnp.maximum(norm, max_norm)
    return jax.tree.map(lambda g: g * scale, grads)


def build(cfg, learning_rate):
    """Return the optax optimizer whose rule is torch's."""
    b1, b2 = cfg.betas
    decay = {"weight_decay": cfg.weight_decay}
    if cfg.amsgrad:
        raise NotImplementedError("amsgrad")
    if cfg.name == "adamw":
        return optax.adamw(learning_rate, b1=b1, b2=b2, eps=cfg.eps, **decay)
    if cfg.name == "lion":
        return optax.lion(learning_rate, b1=b1, b2=b2, **decay)
    if cfg.name == "adam":
        rule = optax.adam(learning_rate, b1=b1, b2=b2, eps=cfg.eps)
    elif cfg.name == "adamax":
        rule = optax.adamax(learning_rate, b1=b1, b2=b2, eps=cfg.eps)
    elif cfg.name == "sgd" and cfg.dampening == 0:
        rule = optax.sgd(learning_rate, momentum=cfg.momentum or None, nesterov=cfg.nesterov)
    else:
        raise NotImplementedError(cfg.name)
    return optax.chain(optax.add_decayed_weights(**decay), rule)


def train(problem):
    if not problem.uses_only("learning_rates", "max_norm"):
        raise NotImplementedError("the settings of a recipe")
    lr = problem.optimizer.learning_rate
    if problem.learning_rates is not None:
        lrs = jnp.array(problem.learning_rates, problem.dtype)
        lr = lrs.__getitem__
    tx = build(problem.optimizer, lr)
    params = {"kernel": jnp.array(problem.W), "bias": jnp.array(problem.b)}
    opt_state = tx.init(params)
    k, batches = problem.accumulation_steps, problem.micro_batches
    for _ in range(problem.epochs):
        for first in range(0, len(batches), k):
            acc, count = jax.tree.map(jnp.zeros_like, params), 0
            for inputs, targets in batches[first : first + k]:
                acc = jax.tree.map(jnp.add, acc, summed_grads(params, inputs, targets))
                count += len(inputs)
            grads = jax.tree.map(partial(jnp.multiply, 1 / count), acc)
            if problem.max_norm is not None:
                grads = clip_by_norm(grads, problem.max_norm)
            params, opt_state = apply(tx, params, opt_state, grads)
            yield np.asarray(params["kernel"]), np.asarray(params["bias"])
