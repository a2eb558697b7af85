"""optax.MultiSteps around a chain that clips; `clip_outside` has the clip before MultiSteps."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

jax.config.update("jax_enable_x64", True)


def make_rule(problem):
    s, lr = problem.optimizer, problem.optimizer.learning_rate
    if problem.learning_rates is not None:
        lr = jnp.asarray(problem.learning_rates).__getitem__
    if s.name == "adamw" and not s.amsgrad:
        return optax.adamw(lr, *s.betas, s.eps, weight_decay=s.weight_decay)
    if s.name == "sgd" and not s.dampening:
        decay = optax.add_decayed_weights(s.weight_decay)
        return optax.chain(decay, optax.sgd(lr, s.momentum or None, s.nesterov))
    raise NotImplementedError("SGD without dampening, and AdamW")


def loop(problem, optimizer):
    def loss_fn(params, x, y):
        return jnp.square(x @ params["W"] + params["b"] - y).sum(axis=1).mean()

    @jax.jit
    def train_step(params, state, x, y):
        updates, state = optimizer.update(jax.grad(loss_fn)(params, x, y), state, params)
        return optax.apply_updates(params, updates), state

    params = {"W": jnp.asarray(problem.W), "b": jnp.asarray(problem.b)}
    state = optimizer.init(params)
    for step, (x, y) in enumerate(problem.epochs * list(problem.micro_batches), 1):
        params, state = train_step(params, state, x, y)
        if step % problem.accumulation_steps == 0:
            yield np.asarray(params["W"]), np.asarray(params["b"])


def clip(problem):
    used = "max_norm", "learning_rates", "partial_windows"
    if not problem.uses_only(*used) or problem.partial_windows == "drop":
        raise NotImplementedError("clipping, learning rates and carried windows alone")
    return optax.clip_by_global_norm(problem.max_norm) if problem.max_norm else optax.identity()


def train(problem):
    rule = optax.chain(clip(problem), make_rule(problem))
    yield from loop(problem, optax.MultiSteps(rule, problem.accumulation_steps))


def clip_outside(problem):
    rule = optax.MultiSteps(make_rule(problem), problem.accumulation_steps)
    yield from loop(problem, optax.chain(clip(problem), rule.gradient_transformation()))
