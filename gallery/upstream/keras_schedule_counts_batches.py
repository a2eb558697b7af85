"""Keras 3.15.1: under gradient_accumulation_steps, a learning rate schedule counts batches.

`optimizer.iterations` is the number of updates, but the schedule is called with the
number of batches: `BaseOptimizer._get_current_learning_rate` passes `self._iterations`. A schedule
of N updates is over after N / gradient_accumulation_steps of them.
"""

import keras

STEPS, UPDATES = 4, 3


class Recorded(keras.optimizers.schedules.LearningRateSchedule):
    def __init__(self):
        self.counts = []

    def __call__(self, step):
        self.counts.append(int(step))
        return 0.1


if __name__ == "__main__":
    schedule = Recorded()
    weight = keras.Variable([0.0])
    optimizer = keras.optimizers.SGD(schedule, gradient_accumulation_steps=STEPS)
    optimizer.build([weight])
    updates, seen = [], []
    for _ in range(STEPS * UPDATES):
        before, schedule.counts = weight.numpy().copy(), []
        updates.append(int(optimizer.iterations))
        optimizer.apply([keras.ops.ones(1)])
        if (weight.numpy() != before).any():
            seen.append(schedule.counts[-1])
    print("expected: the schedule is called with", sorted(set(updates)))
    print("actual:   the schedule is called with", seen)
