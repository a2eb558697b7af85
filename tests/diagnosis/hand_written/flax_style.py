"""A module class and a TrainState with apply_gradients, as flax has them, without flax."""

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

jax.config.update("jax_enable_x64", True)


class Params(NamedTuple):
    kernel: Any
    bias: Any


@dataclass(frozen=True)
class Dense:
    features: int

    def init(self, kernel, bias):
        assert kernel.shape[1] == self.features
        return Params(jnp.asarray(kernel), jnp.asarray(bias))

    def apply(self, params, x):
        return jnp.einsum("nf,fo->no", x, params.kernel) + params.bias


@dataclass(frozen=True)
class TrainState:
    params: Params
    opt_state: Any
    tx: optax.GradientTransformationExtraArgs
    acc: Params
    acc_weight: float = 0.0

    @classmethod
    def create(cls, params, tx):
        return cls(params, tx.init(params), tx, jax.tree.map(jnp.zeros_like, params))

    def accumulate(self, grads, weight):
        acc = jax.tree.map(lambda a, g: a + weight * g, self.acc, grads)
        return replace(self, acc=acc, acc_weight=self.acc_weight + weight)

    def apply_gradients(self):
        grads = jax.tree.map(lambda a: a / self.acc_weight, self.acc)
        updates, opt_state = self.tx.update(grads, self.opt_state, self.params)
        return replace(
            self,
            params=optax.apply_updates(self.params, updates),
            opt_state=opt_state,
            acc=jax.tree.map(jnp.zeros_like, self.acc),
            acc_weight=0.0,
        )


def make_tx(problem):
    cfg, lr = problem.optimizer, problem.optimizer.learning_rate
    if problem.learning_rates is not None:
        values = jnp.asarray(problem.learning_rates, dtype=problem.dtype)
        lr = values.__getitem__
    clip = optax.clip_by_global_norm(problem.max_norm or jnp.inf)
    if cfg.name == "sgd" and not (cfg.momentum or cfg.weight_decay):
        return optax.chain(clip, optax.scale_by_learning_rate(lr))
    if cfg.name in ("adam", "adamw") and not cfg.amsgrad:
        decay = optax.add_decayed_weights(cfg.weight_decay)
        adam = optax.scale_by_adam(b1=cfg.betas[0], b2=cfg.betas[1], eps=cfg.eps)
        order = [decay, adam] if cfg.name == "adam" else [adam, decay]
        return optax.chain(clip, *order, optax.scale_by_learning_rate(lr))
    raise NotImplementedError(f"optimizer {cfg.name}")


def train(problem):
    if not problem.uses_only("learning_rates", "max_norm"):
        raise NotImplementedError("the settings of a recipe")
    model = Dense(problem.b.shape[0])

    @jax.jit
    @jax.grad
    def grad_fn(params, batch):
        x, y = batch
        return jnp.sum(jnp.square(model.apply(params, x) - y), axis=-1).mean()

    state = TrainState.create(model.init(problem.W, problem.b), make_tx(problem))
    for _ in range(problem.epochs):
        for i, batch in enumerate(problem.micro_batches, 1):
            state = state.accumulate(grad_fn(state.params, batch), float(len(batch[0])))
            if i % problem.accumulation_steps == 0 or i == len(problem.micro_batches):
                state = state.apply_gradients()
                yield np.array(state.params.kernel), np.array(state.params.bias)
