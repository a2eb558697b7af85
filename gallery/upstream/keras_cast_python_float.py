"""Keras 3.15.1 on TensorFlow: casting a Python float to float64 goes through float32.

`keras.ops.cast(0.9, "float64")` is `tf.cast`, which makes a float32 tensor of the number before it
casts it. Optimizers cast their settings so: with floatx "float64", and float64 weights, momentum,
betas and weight decay have the precision of float32. The PyTorch and JAX backends are right.
"""

import os

os.environ["KERAS_BACKEND"] = "tensorflow"

import keras
import numpy as np

if __name__ == "__main__":
    keras.config.set_floatx("float64")
    print("expected", 0.9)
    print("actual  ", float(keras.ops.cast(0.9, "float64")))

    weight = keras.Variable(np.zeros(1))
    optimizer = keras.optimizers.SGD(1.0, momentum=0.9)
    optimizer.build([weight])
    for _ in range(2):
        optimizer.apply([keras.ops.ones(1)])
    print("expected, after two updates of SGD with momentum", -1.0 - 1.9)
    print("actual,   after two updates of SGD with momentum", float(weight.numpy()[0]))
