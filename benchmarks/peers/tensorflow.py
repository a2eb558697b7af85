"""Loops in TensorFlow, and Keras's."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from benchmarks.peers import (
    BETAS,
    BY_HAND,
    COMPILED_PRODUCTS,
    EPS,
    FAST,
    PRODUCTS,
    RATE,
    READABLE,
    Contestant,
)
from tensorflow_impl import data, fast, optimizers, padding, training
from tensorflow_impl.progress import Progress


def adam(steps: int | None = None) -> Any:
    """What the loops that are not the repository's update with.

    Keras adds its epsilon before it corrects a bias: with this one, the first update is Adam's.
    """
    epsilon = EPS * (1 - BETAS[1]) ** 0.5
    return keras.optimizers.Adam(RATE, *BETAS, epsilon, gradient_accumulation_steps=steps)


def by_hand(problem: Any) -> Contestant:
    """The loop without a helper."""
    (W, b), epoch = variables, _ = data.load(problem)
    optimizer, examples = adam(), sum(len(x) for x, _ in epoch)
    optimizer.build(variables)

    def window() -> Any:
        sums, total = [tf.zeros_like(v) for v in variables], 0.0
        for x, y in epoch:
            with tf.GradientTape() as tape:
                loss = tf.reduce_sum(tf.square(x @ W + b - y)) / examples
            sums = [s + g for s, g in zip(sums, tape.gradient(loss, variables), strict=True)]
            total += loss
        optimizer.apply_gradients(zip(sums, variables, strict=True))
        return float(total)

    return Contestant(window, lambda: data.snapshot(variables))


def function(problem: Any) -> Contestant:
    """One `tf.function` a window, as in gallery/tf_function.py."""
    (W, b), epoch = variables, _ = data.load(problem)
    optimizer, examples = adam(), sum(len(x) for x, _ in epoch)
    optimizer.build(variables)

    @tf.function
    def update(window: Any) -> Any:
        sums, total = [tf.zeros_like(v) for v in variables], 0.0
        for x, y in window:
            with tf.GradientTape() as tape:
                loss = tf.reduce_sum(tf.square(x @ W + b - y)) / examples
            sums = [s + g for s, g in zip(sums, tape.gradient(loss, variables), strict=True)]
            total += loss
        optimizer.apply(sums, variables)
        return total

    return Contestant(lambda: float(update(epoch)), lambda: data.snapshot(variables))


def readable(problem: Any) -> Contestant:
    """The repository's plain loop."""
    parameters, epoch = data.load(problem)
    optimizer = optimizers.make_optimizer(parameters, problem)
    return Contestant(
        lambda: float(training.train_window(parameters, optimizer, epoch)),
        lambda: data.snapshot(parameters),
        lambda: optimizer.iterations.assign(0),
    )


def compiled(problem: Any) -> Contestant:
    """The repository's fast form."""
    parameters, epoch = data.load_weighted(problem)
    optimizer = optimizers.make_optimizer(parameters, problem)
    program, progress = fast.compiled(parameters, optimizer, problem), Progress(problem)
    examples = max(len(x) for x, _ in problem.micro_batches)
    stacked = [padding.stack(arrays, len(epoch), examples) for arrays in zip(*epoch)]

    def rewind() -> None:
        progress.updates = 0
        optimizer.iterations.assign(0)

    return Contestant(
        lambda: fast.update_or_skip(program, stacked, progress),
        lambda: data.snapshot(parameters),
        rewind,
    )


class Clock(keras.callbacks.Callback):
    """When the first window of a `fit` ends, and when the last: what `fit` begins with is apart."""

    def __init__(self, windows: int, steps: int) -> None:
        """windows: that are timed, after one that is not."""
        super().__init__()
        self.first, self.last = steps, steps * (windows + 1)
        self.began = self.ended = 0.0

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Look at the clock at these two."""
        if batch + 1 == self.first:
            self.began = time.perf_counter()
        elif batch + 1 == self.last:
            self.ended = time.perf_counter()


def fit(problem: Any, together: int = 1) -> Contestant:
    """Keras's `fit`, as in gallery/keras_fit.py; so many micro-batches in one call of a program."""
    (features, outputs), k = problem.W.shape, problem.accumulation_steps
    model = keras.Sequential([keras.Input((features,)), keras.layers.Dense(outputs)])
    model.set_weights([problem.W, problem.b])
    model.compile(
        adam(k if k > 1 else None),
        lambda y, prediction: keras.ops.sum(keras.ops.square(prediction - y), axis=-1),
        steps_per_execution=together,
    )
    batches = tf.data.Dataset.from_tensor_slices(tuple(map(np.stack, zip(*problem.micro_batches))))
    batches = batches.repeat()
    quietly: dict[str, Any] = {"verbose": 0, "shuffle": False}

    def block(windows: int) -> float:
        clock = Clock(windows, k)
        model.fit(batches, steps_per_epoch=clock.last, callbacks=[clock], **quietly)
        return clock.ended - clock.began

    return Contestant(
        lambda: model.fit(batches, steps_per_epoch=k, **quietly), model.get_weights, block=block
    )


def fit_together(problem: Any) -> Contestant:
    """The same, a window in one call of a program."""
    return fit(problem, problem.accumulation_steps)


def products(problem: Any) -> Contestant:
    """x W and the transposed x times an error, for each micro-batch."""
    W = tf.constant(problem.W)
    epoch = [(tf.constant(x), tf.constant(y)) for x, y in problem.micro_batches]

    def window() -> None:
        for x, y in epoch:
            tf.matmul(x, W)
            made = tf.matmul(x, y, transpose_a=True)
        made.numpy()

    return Contestant(window)


def compiled_products(problem: Any) -> Contestant:
    """The same in XLA, which multiplies with another library than TensorFlow's eager operations."""
    W = tf.constant(problem.W)
    epoch = [(tf.constant(x), tf.constant(y)) for x, y in problem.micro_batches]

    @tf.function(jit_compile=True)
    def both(x: Any, W: Any, error: Any) -> Any:
        return x @ W, tf.matmul(x, error, transpose_a=True)

    call = both.get_concrete_function(epoch[0][0], W, epoch[0][1])

    def window() -> None:
        for x, y in epoch:
            _, made = call(x, W, y)
        made.numpy()

    return Contestant(window)


CONTESTANTS: dict[str, Callable[[Any], Contestant]] = {
    BY_HAND: by_hand,
    READABLE: readable,
    FAST: compiled,
    "tf.function": function,
    "Keras fit": fit,
    "Keras fit, steps_per_execution=K": fit_together,
    PRODUCTS: products,
    COMPILED_PRODUCTS: compiled_products,
}
