"""Keras's `fit` with the optimizer's own gradient_accumulation_steps, on TensorFlow."""

from itertools import cycle

import keras
from keras import ops
from keras.optimizers.schedules import LearningRateSchedule


class Recorder(keras.callbacks.Callback):
    def __init__(self):
        super().__init__()
        self.updates = []

    def on_train_batch_end(self, batch, logs=None):
        if int(self.model.optimizer.iterations) > len(self.updates):
            self.updates.append(self.model.get_weights())


class Rates(LearningRateSchedule):
    def __init__(self, rates, dtype):
        self.rates = ops.convert_to_tensor(rates, dtype)

    def __call__(self, step):
        return ops.take(self.rates, ops.cast(step, "int32"))


def make_optimizer(problem):
    s, k = problem.optimizer, problem.accumulation_steps
    if s.name != "sgd" or s.dampening or s.weight_decay:
        raise NotImplementedError("SGD without dampening or decay")
    rates = problem.learning_rates
    return keras.optimizers.SGD(
        s.learning_rate if rates is None else Rates(rates, problem.dtype),
        s.momentum,
        s.nesterov,
        global_clipnorm=problem.max_norm,
        gradient_accumulation_steps=k if k > 1 else None,
    )


def squared_error(y, prediction):
    return ops.sum(ops.square(prediction - y), axis=-1)


def train(problem):
    plain = problem.uses_only("max_norm", "learning_rates", "partial_windows")
    if not plain or problem.partial_windows == "drop":
        raise NotImplementedError("clipping, learning rates and carried windows alone")
    keras.config.set_floatx(problem.dtype)
    model = keras.Sequential([keras.Input(problem.W.shape[:1]), keras.layers.Dense(problem.b.size)])
    model.set_weights([problem.W, problem.b])
    model.compile(make_optimizer(problem), squared_error)
    epochs, steps, recorder = problem.epochs, len(problem.micro_batches), Recorder()
    batches = (pair for pair in cycle(problem.micro_batches))
    model.fit(batches, epochs=epochs, steps_per_epoch=steps, callbacks=[recorder], verbose=0)
    yield from recorder.updates
