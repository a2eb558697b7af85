"""TensorFlow without Keras: variables, two tf.functions, and the rule written out."""

import tensorflow as tf


class Trainer(tf.Module):
    def __init__(self, problem):
        super().__init__()
        cfg = problem.optimizer
        if cfg.name not in ("sgd", "adagrad") or cfg.nesterov or cfg.dampening:
            raise NotImplementedError(f"{cfg.name} with these settings")
        self.cfg, self.max_norm = cfg, problem.max_norm
        self.weights = [tf.Variable(problem.W), tf.Variable(problem.b)]
        self.totals = [tf.Variable(tf.zeros_like(w)) for w in self.weights]
        self.count = tf.Variable(tf.zeros((), problem.dtype))
        start = tf.constant(cfg.initial_accumulator_value, problem.dtype)
        self.slots = [tf.Variable(tf.fill(w.shape, start)) for w in self.weights]

    @tf.function(reduce_retracing=True)
    def accumulate(self, x, y):
        W, b = self.weights
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(self.weights)
            loss = tf.reduce_sum(tf.math.squared_difference(x @ W + b, y))
        for total, gradient in zip(self.totals, tape.gradient(loss, self.weights)):
            total.assign_add(gradient)
        self.count.assign_add(tf.cast(len(x), self.count.dtype))

    @tf.function
    def update(self, rate):
        gradients = [total / self.count for total in self.totals]
        if self.max_norm is not None:
            gradients, _ = tf.clip_by_global_norm(gradients, self.max_norm)
        for w, g, slot in zip(self.weights, gradients, self.slots):
            g += self.cfg.weight_decay * w
            if self.cfg.name == "adagrad":
                slot.assign_add(g * g)
                w.assign_sub(rate * g / (tf.sqrt(slot) + self.cfg.eps))
            else:
                slot.assign(self.cfg.momentum * slot + g)
                w.assign_sub(rate * slot)
        for total in self.totals:
            total.assign(tf.zeros_like(total))
        self.count.assign(0)


def train(problem):
    if not problem.uses_only("learning_rates", "max_norm"):
        raise NotImplementedError("the settings of a recipe")
    trainer = Trainer(problem)
    data = [(tf.constant(x), tf.constant(y)) for x, y in problem.micro_batches]
    updates = 0
    for _ in range(problem.epochs):
        for number, (x, y) in enumerate(data, 1):
            trainer.accumulate(x, y)
            if number % problem.accumulation_steps and number < len(data):
                continue
            rate = problem.optimizer.learning_rate
            if problem.learning_rates is not None:
                rate = problem.learning_rates[updates]
            rate /= 1 + updates * problem.optimizer.lr_decay
            trainer.update(tf.constant(rate, problem.dtype))
            updates += 1
            yield [w.numpy() for w in trainer.weights]
