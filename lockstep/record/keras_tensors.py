"""What is taken of a tensor in Keras, on each backend: whole, or its sketch and norm."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops

from lockstep.record.writer import Array, lattice


class Cells:
    """Variables of TensorFlow's that a graph assigns to and that are read when it has run."""

    def __init__(self) -> None:
        """Begin with none."""
        self.variables: dict[tuple[bool, str], list[Any]] = {}

    def drop(self, whole: bool) -> None:
        """Forget those of a graph that runs no more."""
        self.variables = {at: held for at, held in self.variables.items() if at[0] != whole}

    def assign(self, whole: bool, key: str, values: list[Any]) -> None:
        """Assign within a graph; the variables are made outside of it."""
        import tensorflow as tf

        held = self.variables.get((whole, key), [])
        values = [tf.convert_to_tensor(value) for value in values]
        if [(each.shape, each.dtype) for each in held] != [(v.shape, v.dtype) for v in values]:
            with tf.init_scope():
                held = [tf.Variable(tf.zeros(v.shape, v.dtype), trainable=False) for v in values]
            self.variables[whole, key] = held
        for variable, value in zip(held, values, strict=True):
            variable.assign(value)


def graph() -> Any:
    """The graph of TensorFlow's that is being traced, if one is."""
    if keras.backend.backend() != "tensorflow":
        return None
    import tensorflow as tf

    return None if tf.executing_eagerly() else tf.compat.v1.get_default_graph()


def pieces(value: Any, whole: bool, measured: bool, shape: Any = None) -> list[Any]:
    """An array whole, or its sketch, and its norm where it is measured."""
    value = dense(value)
    if shape is not None:
        value = shaped(value, shape)
    if whole or len(value.shape) == 0:  # TensorFlow's shape of a scalar is true
        return [value]
    taken = value
    for axis, length in enumerate(value.shape):
        taken = ops.take(taken, lattice(length, len(value.shape)), axis=axis)
    if not measured:
        return [taken]
    flat = ops.reshape(value, (-1,))
    if keras.backend.standardize_dtype(flat.dtype) not in ("float32", "float64"):
        flat = ops.cast(flat, "float32")
    return [taken, norm(flat)]


def norm(flat: Any) -> Any:
    """The norm of a vector, in one pass: TensorFlow's product of two is ten times as slow."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return tf.sqrt(2 * tf.nn.l2_loss(flat))
    return ops.sqrt(ops.dot(flat, flat))


def dense(value: Any) -> Any:
    """A variable's value now, and the rows of an embedding (IndexedSlices) as an array."""
    if isinstance(value, keras.Variable):
        value = value.value
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        # Keras' own conversion returns a variable as it is, and it would go on changing.
        return tf.convert_to_tensor(value)
    return ops.convert_to_tensor(value)


def shaped(value: Any, shape: Any) -> Any:
    """A tensor of a known shape, where a graph of TensorFlow's does not know all of it."""
    if keras.backend.backend() != "tensorflow" or value.shape.is_fully_defined():
        return value
    import tensorflow as tf

    return tf.ensure_shape(value, shape)


def copied(value: Any) -> Any:
    """What stays as it is now; PyTorch writes into its tensors."""
    return value.detach().clone() if keras.backend.backend() == "torch" else value


def host(value: Any) -> Array:
    """A value as an array of NumPy's, of its own memory."""
    return np.array(ops.convert_to_numpy(value))
