"""optax from end to end: clipping, the optimizer and its schedule in a chain inside MultiSteps."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

jax.config.update("jax_enable_x64", True)


def window_sizes(problem):
    """How many batches each window of an epoch has."""
    full, rest = divmod(len(problem.micro_batches), problem.accumulation_steps)
    return [problem.accumulation_steps] * full + [rest] * (rest > 0)


def make_schedule(problem):
    if problem.learning_rates is None:
        return problem.optimizer.learning_rate
    table = jnp.asarray(problem.learning_rates, problem.dtype)
    return lambda count: table[count]


def make_optimizer(problem):
    cfg, lr = problem.optimizer, make_schedule(problem)
    if cfg.name == "sgd" and not cfg.dampening:
        rule = optax.sgd(lr, momentum=cfg.momentum or None, nesterov=cfg.nesterov)
    elif cfg.name == "adam" and not cfg.amsgrad:
        rule = optax.adam(lr, *cfg.betas, eps=cfg.eps)
    elif cfg.name == "adamw" and not cfg.amsgrad:
        rule = optax.adamw(lr, *cfg.betas, eps=cfg.eps, weight_decay=cfg.weight_decay)
    else:
        raise NotImplementedError(f"{cfg.name} with these settings")
    links = [rule]
    if cfg.name != "adamw":
        links.insert(0, optax.add_decayed_weights(cfg.weight_decay))
    if problem.max_norm is not None:
        links.insert(0, optax.clip_by_global_norm(problem.max_norm))
    sizes = jnp.asarray(window_sizes(problem), jnp.int32)
    return optax.MultiSteps(
        optax.chain(*links),
        every_k_schedule=lambda update: sizes[update % len(sizes)],
        accumulator_dtype=problem.dtype,
    )


@jax.jit
@jax.grad
def gradient(params, x, y, share):
    W, b = params
    return share * ((x @ W + b - y) ** 2).sum(axis=1).mean()


def train(problem):
    if not problem.uses_only("learning_rates", "max_norm"):
        raise NotImplementedError("the settings of a recipe")
    optimizer = make_optimizer(problem)
    params = (jnp.asarray(problem.W), jnp.asarray(problem.b))
    opt_state = optimizer.init(params)

    @jax.jit
    def micro_step(params, opt_state, grads):
        updates, opt_state = optimizer.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state

    ends = np.cumsum(window_sizes(problem)).tolist()
    for _ in range(problem.epochs):
        for start, end in zip([0, *ends], ends):
            window = problem.micro_batches[start:end]
            n = sum(x.shape[0] for x, _ in window)
            for x, y in window:
                # MultiSteps takes the plain mean, so a larger batch must weigh more
                share = len(window) * x.shape[0] / n
                grads = gradient(params, x, y, share)
                params, opt_state = micro_step(params, opt_state, grads)
            yield tuple(np.asarray(p) for p in params)
