"""A keras.Model with its own train_step and accumulators, driven by train_on_batch."""

import keras
import numpy as np
import tensorflow as tf


class AccumulatingModel(keras.Model):
    """Sums gradients over batches; `apply` divides by the examples that were summed."""

    def __init__(self, outputs, dtype):
        super().__init__(dtype=dtype)
        self.dense = keras.layers.Dense(outputs, dtype=dtype)

    def call(self, x):
        return self.dense(x)

    def prepare(self, W, b):
        self.dense.build((None, W.shape[0]))
        self.dense.set_weights([W, b])
        self.sums = [tf.Variable(tf.zeros_like(v)) for v in self.dense.trainable_variables]
        self.examples = tf.Variable(0, dtype="int64")

    def train_step(self, data):
        x, y, _ = keras.utils.unpack_x_y_sample_weight(data)
        with tf.GradientTape() as tape:
            squares = tf.square(self(x, training=True) - y)
            loss = tf.reduce_sum(squares)
        gradients = tape.gradient(loss, self.dense.trainable_variables)
        for total, gradient in zip(self.sums, gradients):
            total.assign_add(gradient)
        self.examples.assign_add(tf.shape(x, out_type="int64")[0])
        return {"loss": loss}

    def apply(self):
        n = tf.cast(self.examples, self.sums[0].dtype)
        means = [total / n for total in self.sums]
        self.optimizer.apply(means, self.dense.trainable_variables)
        for total in self.sums:
            total.assign(tf.zeros_like(total))
        self.examples.assign(0)


class Rates(keras.optimizers.schedules.LearningRateSchedule):
    """A rate for each update, in the model's dtype: an optimizer's own variable is float32."""

    def __init__(self, rates, dtype):
        self.rates = tf.constant(rates, dtype)

    def __call__(self, step):
        return self.rates[keras.ops.cast(step, "int32")]


def train(problem):
    if not problem.uses_only("learning_rates", "max_norm"):
        raise NotImplementedError("the settings of a recipe")
    cfg = problem.optimizer
    # Keras puts the rate inside the momentum, adds eps elsewhere, and decouples decay.
    if cfg.name != "sgd" or cfg.momentum or cfg.weight_decay:
        raise NotImplementedError("Keras agrees on plain SGD only")
    rates = problem.learning_rates
    if rates is None:
        per_epoch = -(-len(problem.micro_batches) // problem.accumulation_steps)
        rates = [cfg.learning_rate] * (per_epoch * problem.epochs)
    model = AccumulatingModel(problem.b.size, problem.dtype)
    model.compile(
        keras.optimizers.SGD(Rates(rates, problem.dtype), global_clipnorm=problem.max_norm),
        run_eagerly=True,
    )
    model.prepare(problem.W, problem.b)
    last = len(problem.micro_batches) - 1
    for _ in range(problem.epochs):
        for i, (x, y) in enumerate(problem.micro_batches):
            model.train_on_batch(x, y)
            if i == last or (i + 1) % problem.accumulation_steps == 0:
                model.apply()
                W, b = model.dense.get_weights()
                yield np.array(W), np.array(b)
