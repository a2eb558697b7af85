"""Keras's own accumulation, gradient_accumulation_steps, as far as it goes.

The optimizer averages K gradients whatever their sizes, counts on through the epochs, and only
updates when it has K: an epoch's short window would wait for the next.
"""

import keras
import tensorflow as tf


def examples_of_window(sizes, index, k):
    start = index - index % k
    return sum(sizes[start : start + k])


def micro_gradient(W, b, x, y, scale):
    with tf.GradientTape() as tape:
        residual = tf.linalg.matmul(x, W) + b - y
        loss = scale * tf.reduce_sum(residual * residual)
    return tape.gradient(loss, [W, b])


def train(problem):
    if not problem.uses_only("partial_windows", "learning_rates", "max_norm"):
        raise NotImplementedError("plain SGD only")
    k, cfg = problem.accumulation_steps, problem.optimizer
    if cfg.name != "sgd" or cfg.momentum or cfg.weight_decay:
        raise NotImplementedError("plain SGD only, the others differ in Keras")
    if k < 2:
        raise NotImplementedError("gradient_accumulation_steps must be 2 or more")
    if len(problem.micro_batches) % k and problem.partial_windows != "carry":
        raise NotImplementedError("Keras carries a partial window over")
    floatx = keras.config.floatx()
    # the learning rate is a variable of this type
    keras.config.set_floatx(problem.dtype)
    optimizer = keras.optimizers.SGD(
        cfg.learning_rate,
        global_clipnorm=problem.max_norm,
        gradient_accumulation_steps=k,
    )
    keras.config.set_floatx(floatx)
    W = tf.Variable(problem.W, name="kernel")
    b = tf.Variable(problem.b, name="bias")
    optimizer.build([W, b])
    run = list(problem.micro_batches) * problem.epochs
    sizes = [len(x) for x, _ in run]
    updates = 0
    for i, (x, y) in enumerate(run):
        n = examples_of_window(sizes, i, k)
        # times K, since Keras will divide by it
        grads = micro_gradient(W, b, x, y, tf.constant(k / n, problem.dtype))
        full = (i + 1) % k == 0
        if full and problem.learning_rates is not None:
            optimizer.learning_rate = problem.learning_rates[updates]
        optimizer.apply_gradients(zip(grads, [W, b]))
        if full:
            updates += 1
            yield W.numpy().copy(), b.numpy().copy()
