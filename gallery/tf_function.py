"""One `tf.function` a window: the sum of its micro-batches' gradients, and a Keras optimizer."""

import keras
import tensorflow as tf


class Rates(keras.optimizers.schedules.LearningRateSchedule):
    def __init__(self, rates, dtype):
        self.rates = tf.constant(rates, dtype)

    def __call__(self, step):
        return self.rates[keras.ops.cast(step, "int32")]


def make_optimizer(problem):
    s, rate = problem.optimizer, problem.optimizer.learning_rate
    if problem.learning_rates is not None:
        rate = Rates(problem.learning_rates, problem.dtype)
    if s.name == "sgd" and not (s.dampening or s.weight_decay):
        return keras.optimizers.SGD(rate, s.momentum, s.nesterov)
    if s.name == "adamw" and not s.amsgrad:
        return keras.optimizers.AdamW(rate, s.weight_decay, *s.betas, s.eps)
    raise NotImplementedError("SGD without decay, and AdamW")


def train(problem):
    if not problem.uses_only("max_norm", "learning_rates"):
        raise NotImplementedError("clipping and learning rates alone")
    keras.config.set_floatx(problem.dtype)
    W, b = variables = tf.Variable(problem.W), tf.Variable(problem.b)
    optimizer = make_optimizer(problem)
    optimizer.build(variables)

    @tf.function(reduce_retracing=True)
    def update(window):
        examples = tf.add_n([tf.shape(x)[0] for x, _ in window])
        total = [tf.zeros_like(v) for v in variables]
        for x, y in window:
            with tf.GradientTape() as tape:
                loss = tf.reduce_sum(tf.square(x @ W + b - y)) / tf.cast(examples, x.dtype)
            total = [t + g for t, g in zip(total, tape.gradient(loss, variables))]
        if problem.max_norm is not None:
            total, _ = tf.clip_by_global_norm(total, problem.max_norm)
        optimizer.apply(total, variables)

    k = problem.accumulation_steps
    data = [(tf.constant(x), tf.constant(y)) for x, y in problem.micro_batches]
    for _ in range(problem.epochs):
        for start in range(0, len(data), k):
            update(data[start : start + k])
            yield W.numpy(), b.numpy()
