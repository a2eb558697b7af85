"""Keras's `fit` on JAX, which has float64 when asked for."""

import os

os.environ |= {"KERAS_BACKEND": "jax", "JAX_ENABLE_X64": "1"}

from keras_fit import train as train
