"""optax.apply_every at the end of the chain, after the optimizer."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

jax.config.update("jax_enable_x64", True)


def make_optimizer(problem):
    s, k = problem.optimizer, problem.accumulation_steps
    clip = optax.clip_by_global_norm(problem.max_norm) if problem.max_norm else optax.identity()
    if s.name == "sgd" and not (s.dampening or s.weight_decay):
        rule = optax.sgd(s.learning_rate, s.momentum or None, s.nesterov)
    elif s.name == "adamw" and not s.amsgrad:
        rule = optax.adamw(s.learning_rate, *s.betas, s.eps, weight_decay=s.weight_decay)
    else:
        raise NotImplementedError("SGD without dampening or decay, and AdamW")
    return optax.chain(clip, rule, optax.apply_every(k))


def train(problem):
    if not problem.uses_only("max_norm", "partial_windows") or problem.partial_windows == "drop":
        raise NotImplementedError("clipping and carried windows alone")
    params = {"W": jnp.asarray(problem.W), "b": jnp.asarray(problem.b)}
    optimizer = make_optimizer(problem)
    state = optimizer.init(params)

    def loss_fn(params, x, y):
        return jnp.square(x @ params["W"] + params["b"] - y).sum(axis=1).mean()

    @jax.jit
    def train_step(params, state, x, y):
        updates, state = optimizer.update(jax.grad(loss_fn)(params, x, y), state, params)
        return optax.apply_updates(params, updates), state

    for step, (x, y) in enumerate(problem.epochs * list(problem.micro_batches), 1):
        params, state = train_step(params, state, x, y)
        if step % problem.accumulation_steps == 0:
            yield np.asarray(params["W"]), np.asarray(params["b"])
