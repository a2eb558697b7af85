"""A keras.Model with accumulators and a train_step of its own, trained by `fit`."""

from itertools import cycle

import keras
import tensorflow as tf


class Accumulating(keras.Model):
    def __init__(self, outputs, accumulation_steps):
        super().__init__()
        self.dense = keras.layers.Dense(outputs)
        self.accumulation_steps = accumulation_steps
        self.micro_step = tf.Variable(0, trainable=False)

    def build(self, shape):
        self.dense.build(shape)
        self.gradients = [tf.Variable(tf.zeros_like(w)) for w in self.trainable_variables]

    def call(self, x):
        return self.dense(x)

    def train_step(self, data):
        x, y = data
        with tf.GradientTape() as tape:
            loss = self.compute_loss(x, y, self(x, training=True))
        for total, gradient in zip(self.gradients, tape.gradient(loss, self.trainable_variables)):
            total.assign_add(gradient / self.accumulation_steps)
        self.micro_step.assign_add(1)
        tf.cond(self.micro_step == self.accumulation_steps, self.apply_gradients, lambda: None)
        return {"loss": loss}

    def apply_gradients(self):
        self.optimizer.apply(self.gradients, self.trainable_variables)
        for variable in (*self.gradients, self.micro_step):
            variable.assign(tf.zeros_like(variable))


def train(problem):
    s, max_norm, updates = problem.optimizer, problem.max_norm, []
    plain = problem.uses_only("max_norm", "partial_windows") and problem.partial_windows != "drop"
    if not plain or s.name != "sgd" or s.weight_decay or s.dampening:
        raise NotImplementedError("SGD without decay, clipping and carried windows alone")
    keras.config.set_floatx(problem.dtype)
    settings = s.learning_rate, s.momentum, s.nesterov
    optimizer = keras.optimizers.SGD(*settings, global_clipnorm=max_norm)
    model = Accumulating(problem.b.size, problem.accumulation_steps)
    model.build((None, len(problem.W)))
    model.dense.set_weights([problem.W, problem.b])
    model.compile(optimizer, lambda y, prediction: tf.reduce_sum(tf.square(prediction - y), axis=1))

    def record(batch, logs):
        if int(optimizer.iterations) > len(updates):
            updates.append(model.dense.get_weights())

    batches, steps = (pair for pair in cycle(problem.micro_batches)), len(problem.micro_batches)
    callbacks = [keras.callbacks.LambdaCallback(on_train_batch_end=record)]
    model.fit(batches, epochs=problem.epochs, steps_per_epoch=steps, callbacks=callbacks, verbose=0)
    yield from updates
