"""Loops in JAX."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from optax import microbatching

from benchmarks.peers import BETAS, BY_HAND, EPS, FAST, PRODUCTS, RATE, READABLE, Contestant
from jax_impl import accumulation, data, fast, optimizers, padding, training
from jax_impl.progress import Progress


def squared_error(params: Any, x: Any, y: Any) -> Any:
    """The squared error, summed, per example."""
    W, b = params
    return jnp.square(x @ W + b - y).sum(axis=1).mean()


def adam() -> Any:
    """What the loops that are not the repository's update with."""
    return optax.adam(RATE, *BETAS, EPS)


class Held:
    """Parameters and state, which go around; an update waits until they are computed."""

    def __init__(self, step: Callable[..., Any], problem: Any, optimizer: Any) -> None:
        """step: from both to both, and to what else it returns."""
        self.step, self.optimizer = step, optimizer
        self.parameters, _ = data.load(problem)
        self.rewind()

    def rewind(self) -> None:
        """Begin with a state that has counted nothing, and is computed."""
        self.state = jax.block_until_ready(self.optimizer.init(self.parameters))

    def window(self) -> None:
        """Take one update."""
        self.parameters, self.state, *_ = self.step(self.parameters, self.state)
        jax.block_until_ready(self.parameters)

    def contestant(self, rewind: Callable[[], Any] | None = None) -> Contestant:
        """Somebody who takes updates."""
        return Contestant(
            self.window, lambda: data.snapshot(self.parameters), rewind or self.rewind
        )


def by_hand(problem: Any) -> Contestant:
    """A compiled micro-step that adds up gradients, and a compiled update."""
    _, epoch = data.load(problem)
    optimizer, examples = adam(), sum(len(x) for x, _ in epoch)

    @jax.jit
    def micro_step(params: Any, sums: Any, x: Any, y: Any) -> Any:
        def share(params: Any) -> Any:
            return squared_error(params, x, y) * (len(x) / examples)

        return jax.tree.map(jnp.add, sums, jax.value_and_grad(share)(params))

    @jax.jit
    def update(params: Any, state: Any, gradients: Any) -> Any:
        changes, state = optimizer.update(gradients, state, params)
        return optax.apply_updates(params, changes), state

    # Arrays never change, so that the same zeros begin every window.
    zeros = jax.tree.map(jnp.zeros_like, (jnp.float32(0), *data.load(problem)[:1]))

    def step(params: Any, state: Any) -> Any:
        sums = zeros
        for x, y in epoch:
            sums = micro_step(params, sums, x, y)
        loss, gradients = sums
        return *update(params, state, gradients), loss

    return Held(step, problem, optimizer).contestant()


def readable(problem: Any) -> Contestant:
    """The repository's plain loop."""
    parameters, epoch = data.load(problem)
    optimizer = accumulation.accumulating(optimizers.make_optimizer(parameters, problem), problem)

    def step(params: Any, state: Any) -> Any:
        return training.train_window(params, state, optimizer, epoch)

    return Held(step, problem, optimizer).contestant()


def compiled(problem: Any) -> Contestant:
    """The repository's fast form."""
    parameters, epoch = data.load_weighted(problem)
    optimizer = optimizers.make_optimizer(parameters, problem)
    examples = max(len(x) for x, _ in problem.micro_batches)
    stacked = [padding.stack(arrays, len(epoch), examples) for arrays in zip(*epoch)]
    progress = Progress(problem)

    def step(params: Any, state: Any) -> Any:
        return fast.update_or_skip(params, state, optimizer, stacked, progress)

    held = Held(step, problem, optimizer)

    def rewind() -> None:
        progress.updates = 0
        held.rewind()

    return held.contestant(rewind)


def multi_steps(problem: Any) -> Contestant:
    """optax.MultiSteps in a compiled micro-step, as in gallery/optax_multisteps.py."""
    _, epoch = data.load(problem)
    optimizer = optax.MultiSteps(adam(), problem.accumulation_steps)

    @jax.jit
    def micro_step(params: Any, state: Any, total: Any, x: Any, y: Any) -> Any:
        loss, gradients = jax.value_and_grad(squared_error)(params, x, y)
        changes, state = optimizer.update(gradients, state, params)
        return optax.apply_updates(params, changes), state, total + loss

    zero = jnp.float32(0)

    def step(params: Any, state: Any) -> Any:
        total = zero
        for x, y in epoch:
            params, state, total = micro_step(params, state, total, x, y)
        return params, state, total

    return Held(step, problem, optimizer).contestant()


def microbatching_step(problem: Any) -> Contestant:
    """optax.microbatch in one compiled update, as in gallery/optax_microbatching.py."""
    examples = len(problem.micro_batches[0][0])
    x, y = (jnp.concatenate(each) for each in zip(*problem.micro_batches))
    optimizer = adam()
    gradient = microbatching.microbatch(
        jax.value_and_grad(squared_error), (1, 2), examples, microbatching.AccumulationType.MEAN
    )

    @jax.jit
    def update(params: Any, state: Any, x: Any, y: Any) -> Any:
        loss, gradients = gradient(params, x, y)
        changes, state = optimizer.update(gradients, state, params)
        return optax.apply_updates(params, changes), state, loss

    return Held(lambda *held: update(*held, x, y), problem, optimizer).contestant()


def products(problem: Any) -> Contestant:
    """x W and the transposed x times an error, for each micro-batch."""
    (W, _), epoch = data.load(problem)
    both = jax.jit(lambda x, W, error: (x @ W, x.T @ error))

    def window() -> None:
        for x, y in epoch:
            made = both(x, W, y)
        jax.block_until_ready(made)

    return Contestant(window)


CONTESTANTS = {
    BY_HAND: by_hand,
    READABLE: readable,
    FAST: compiled,
    "optax.MultiSteps": multi_steps,
    "optax.microbatching": microbatching_step,
    PRODUCTS: products,
}
