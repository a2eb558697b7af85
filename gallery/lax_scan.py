"""One jitted update: lax.scan over a window's micro-batches, padded with rows of weight 0."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

jax.config.update("jax_enable_x64", True)


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


def loss_fn(params, x, y, weights):
    return weights @ jnp.square(x @ params["W"] + params["b"] - y).sum(axis=1)


def padded(arrays, count, rows):
    stack = np.zeros((count, rows, *arrays[0].shape[1:]), arrays[0].dtype)
    for place, array in zip(stack, arrays):
        place[: len(array)] = array
    return stack


def train(problem):
    if not problem.uses_only("max_norm", "learning_rates", "example_weights"):
        raise NotImplementedError("clipping, learning rates and weights alone")
    params = {"W": jnp.asarray(problem.W), "b": jnp.asarray(problem.b)}
    optimizer, k = make_optimizer(problem), problem.accumulation_steps
    state, rows = optimizer.init(params), max(len(x) for x, _ in problem.micro_batches)

    @jax.jit
    def train_step(params, state, window):
        def micro_step(total, micro_batch):
            return jax.tree.map(jnp.add, total, jax.grad(loss_fn)(params, *micro_batch)), None

        total, _ = jax.lax.scan(micro_step, jax.tree.map(jnp.zeros_like, params), window)
        grads = jax.tree.map(lambda g: g / window[-1].sum(), total)
        updates, state = optimizer.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    xs, ys = zip(*problem.micro_batches)
    weights = problem.example_weights or [np.ones(len(x), x.dtype) for x in xs]
    for start in list(range(0, len(xs), k)) * problem.epochs:
        window = [padded(each[start : start + k], k, rows) for each in (xs, ys, weights)]
        params, state = train_step(params, state, window)
        yield np.asarray(params["W"]), np.asarray(params["b"])
