"""SGD, Adam and AdamW in JAX, as a port to check."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax

jax.config.update("jax_enable_x64", True)


SUPPORTED = (
    *("max_norm", "learning_rates", "decay_bias"),
    *("non_finite", "loss_scale"),
)


def windows(problem):
    k = problem.accumulation_steps
    for _ in range(problem.epochs):
        for i in range(0, len(problem.micro_batches), k):
            yield problem.micro_batches[i : i + k]


def make_optimizer(problem):
    s = problem.optimizer
    if s.nesterov or s.dampening or s.amsgrad:
        raise NotImplementedError(
            "plain momentum and Adam only"
        )
    if s.name == "sgd":
        momentum = optax.trace(s.momentum)
        rule = momentum if s.momentum else optax.identity()
    elif s.name in ("adam", "adamw"):
        rule = optax.scale_by_adam(*s.betas, eps=s.eps)
    else:
        raise NotImplementedError(s.name)
    # decay: after the rule it is AdamW's, before it L2.
    mask = (True, problem.decay_bias)
    decay = optax.add_decayed_weights(s.weight_decay, mask)
    links = [rule, decay] if s.decoupled else [decay, rule]

    rates = problem.learning_rates
    if rates is None:
        rates = [s.learning_rate]
    # schedule: the chain counts updates, and looks it up.
    table = jnp.array(rates, problem.dtype)
    rate = optax.scale_by_learning_rate(table.__getitem__)

    return optax.chain(*links, rate)


@jax.jit
@jax.grad
def micro_gradient(parameters, x, y, examples, scale):
    # forward: pure; the loss is a window's share.
    W, b = parameters
    error = x @ W + b - y
    loss = jnp.square(error).sum() / examples
    return loss * scale


@partial(jax.jit, static_argnames="optimizer")
def apply_gradients(optimizer, gradients, state, parameters):
    # update: apply_updates adds, and both are returned.
    updates, state = optimizer.update(
        gradients, state, parameters
    )
    parameters = optax.apply_updates(parameters, updates)
    return parameters, state


def train(problem):
    if not problem.uses_only(*SUPPORTED):
        raise NotImplementedError(SUPPORTED)
    if problem.non_finite == "raise":
        raise NotImplementedError("such windows are skipped")
    optimizer = make_optimizer(problem)
    parameters = jnp.array(problem.W), jnp.array(problem.b)
    state = optimizer.init(parameters)
    max_norm, growth = problem.max_norm, problem.loss_scale
    scale, streak = growth.initial if growth else 1.0, 0
    for window in windows(problem):
        examples = sum(len(x) for x, _ in window)
        # reset: nothing is kept; the zeros are your own.
        total = jax.tree.map(jnp.zeros_like, parameters)

        for x, y in window:
            # gradient: a function of all that it needs.
            gradients = micro_gradient(
                parameters, x, y, examples, scale
            )
            # accumulate: arrays never change; make another.
            total = jax.tree.map(jnp.add, total, gradients)
        # loss scale: divide before anything looks.
        total = jax.tree.map(lambda g: g / scale, total)
        norm = optax.tree.norm(total)
        finite = bool(jnp.isfinite(norm))

        if finite:
            if max_norm is not None:
                # clip: as clip_by_global_norm does.
                factor = jnp.minimum(1.0, max_norm / norm)
                total = jax.tree.map(
                    lambda g: g * factor, total
                )
            parameters, state = apply_gradients(
                optimizer, total, state, parameters
            )
            streak += 1
            if growth and streak == growth.growth_interval:
                scale, streak = scale * 2, 0
        else:
            scale, streak = scale / 2, 0
        # state: it is what you got back, and must hand on.
        names = {
            "momentum_buffer": optax.tree.get(state, "trace"),
            "exp_avg": optax.tree.get(state, "mu"),
            "exp_avg_sq": optax.tree.get(state, "nu"),
        }

        yield {
            "W": np.asarray(parameters[0]),
            "b": np.asarray(parameters[1]),
            "state": {n: v for n, v in names.items() if v},
        }
