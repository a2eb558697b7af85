"""Keras's `fit` on PyTorch."""

import os

os.environ["KERAS_BACKEND"] = "torch"

from keras_fit import train as train
