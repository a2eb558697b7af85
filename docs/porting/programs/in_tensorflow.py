"""SGD, Adam and AdamW in TensorFlow, as a port to check."""

import keras
import numpy as np
import tensorflow as tf
from keras.optimizers.schedules import LearningRateSchedule


class Rates(LearningRateSchedule):
    """A rate for each update, in the parameters' dtype."""

    def __init__(self, rates, dtype):
        self.rates = tf.constant(rates, dtype)

    # schedule: the optimizer calls it with its own count.
    def __call__(self, count):
        return self.rates[tf.cast(count, "int32")]


class SGD(keras.optimizers.SGD):
    """With the learning rate outside of the buffer."""

    def update_step(self, g, p, rate):
        m = self.momentums[self._get_variable_index(p)].value
        m.assign(self.momentum * m + g)
        p.assign_sub(rate * m)


class Adam(keras.optimizers.Adam):
    """With eps added after the bias is corrected."""

    def update_step(self, g, p, rate):
        eps, count = self.epsilon, self.iterations + 1
        power = self.beta_2 ** tf.cast(count, p.dtype)
        self.epsilon = eps * tf.sqrt(1 - power)
        super().update_step(g, p, rate)
        self.epsilon = eps


SUPPORTED = (
    *("max_norm", "learning_rates", "decay_bias"),
    *("non_finite", "loss_scale"),
)


def windows(problem):
    k = problem.accumulation_steps
    for _ in range(problem.epochs):
        for i in range(0, len(problem.micro_batches), k):
            yield problem.micro_batches[i : i + k]


def make_optimizer(problem):
    s, rates = problem.optimizer, problem.learning_rates
    if s.nesterov or s.dampening or s.amsgrad:
        raise NotImplementedError(
            "plain momentum and Adam only"
        )
    if rates is None:
        count = problem.epochs * len(problem.micro_batches)
        rates = [s.learning_rate] * count
    # schedule: Keras's own ones are float32; this is not.
    rate = Rates(rates, problem.dtype)

    if s.name == "sgd" and not s.momentum:
        return keras.optimizers.SGD(rate)
    if s.name == "sgd":
        return SGD(rate, s.momentum)
    if s.name not in ("adam", "adamw"):
        raise NotImplementedError(s.name)
    betas = map(np.float64, s.betas)
    return Adam(rate, *betas, epsilon=s.eps)


def train(problem):
    if not problem.uses_only(*SUPPORTED):
        raise NotImplementedError(SUPPORTED)
    if problem.non_finite == "raise":
        raise NotImplementedError("such windows are skipped")
    W, b = tf.Variable(problem.W), tf.Variable(problem.b)
    parameters, s = [W, b], problem.optimizer
    optimizer = make_optimizer(problem)
    max_norm, growth = problem.max_norm, problem.loss_scale
    scale, streak = growth.initial if growth else 1.0, 0
    decays = (
        s.weight_decay,
        s.weight_decay * problem.decay_bias,
    )
    # decay: Keras's own is AdamW's, in every optimizer.
    if s.decoupled:
        optimizer.weight_decay = np.float64(s.weight_decay)
    if not problem.decay_bias:
        optimizer.exclude_from_weight_decay([b])

    optimizer.build(parameters)

    def apply_gradients(total):
        if not s.decoupled:
            # decay: coupled, you add it, after clipping.
            trio = zip(total, decays, parameters)
            total = [g + wd * p for g, wd, p in trio]
        # update: assigns the variables, counts itself.
        optimizer.apply_gradients(zip(total, parameters))

    for window in windows(problem):
        examples = sum(len(x) for x, _ in window)
        # reset: a tape keeps nothing; the zeros are your own.
        total = [tf.zeros_like(p) for p in parameters]

        for x, y in window:
            # forward: in the tape; loss is a window's share.
            with tf.GradientTape() as tape:
                error = x @ W + b - y
                loss = tf.reduce_sum(error**2) / examples
                scaled = loss * scale
            # gradient: new tensors, and the tape is spent.
            gradients = tape.gradient(scaled, parameters)
            # accumulate: nobody adds them up but you.
            total = [t + g for t, g in zip(total, gradients)]
        # loss scale: divide before anything looks.
        total = [g / scale for g in total]
        norm = tf.linalg.global_norm(total)
        finite = bool(tf.math.is_finite(norm))

        if finite:
            if max_norm is not None:
                # clip: adds nothing to the norm.
                total, _ = tf.clip_by_global_norm(
                    total, max_norm, norm
                )
            apply_gradients(total)
            streak += 1
            if growth and streak == growth.growth_interval:
                scale, streak = scale * 2, 0
        else:
            scale, streak = scale / 2, 0
        # state: the optimizer's variables, in their order.
        _, *kept = [v.numpy() for v in optimizer.variables]
        if s.name == "sgd":
            state = {"momentum_buffer": kept}
        else:
            state = {
                "exp_avg": kept[0::2],
                "exp_avg_sq": kept[1::2],
            }

        yield {
            "W": W.numpy(),
            "b": b.numpy(),
            "state": {n: v for n, v in state.items() if v},
        }
