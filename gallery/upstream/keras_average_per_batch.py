"""Keras 3.15.1: under gradient_accumulation_steps, use_ema averages once a batch, not an update.

`BaseOptimizer.apply` takes the moving average after each call, also after those that only add up
a gradient and change no variable: an update leaves ema_momentum ** gradient_accumulation_steps of
the average, instead of ema_momentum.
"""

import keras

STEPS, UPDATES, MOMENTUM = 4, 3, 0.5

if __name__ == "__main__":
    weight = keras.Variable([0.0])
    optimizer = keras.optimizers.SGD(
        1.0, use_ema=True, ema_momentum=MOMENTUM, gradient_accumulation_steps=STEPS
    )
    optimizer.build([weight])
    (average,) = (v for v in optimizer.variables if "average" in v.name)
    updates, right, seen = 0, 0.0, []
    for _ in range(STEPS * UPDATES):
        optimizer.apply([keras.ops.ones(1)])
        if int(optimizer.iterations) > updates:
            updates += 1
            kept = 0.0 if updates == 1 else MOMENTUM
            right = kept * right + (1 - kept) * float(weight.numpy()[0])
            seen.append((right, float(average.numpy()[0])))
    print("expected: the average after each update is", [e for e, _ in seen])
    print("actual:   the average after each update is", [a for _, a in seen])
