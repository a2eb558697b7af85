"""What is taken of a tensor in Keras, on each backend: whole, or its sketch and norm."""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

import keras
import numpy as np
from keras import ops

from lockstep.record.writer import Array, lattice

# What is kept of an array: whole, or its sketch, and the norm of the whole where it is measured.
Kept = tuple[Array, float | None]


class Cells:
    """Variables of TensorFlow's that a graph assigns to and that are read when it has run."""

    def __init__(self, whole: bool) -> None:
        """Begin with none; `whole` is whether the first update is."""
        import tensorflow as tf

        self.whole = tf.Variable(whole, trainable=False)
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
                held = [cell(value) for value in values]
            self.variables[whole, key] = held
        for variable, value in zip(held, values, strict=True):
            variable.assign(value)


def cell(value: Any) -> Any:
    """A variable that what a graph computes may be assigned to, each axis of any length alike."""
    import tensorflow as tf

    empty = tf.zeros([length or 0 for length in value.shape], value.dtype)
    return tf.Variable(empty, trainable=False, shape=value.shape)


def graph() -> Any:
    """The graph of TensorFlow's that is being traced, if one is."""
    if keras.backend.backend() != "tensorflow":
        return None
    import tensorflow as tf

    return None if tf.executing_eagerly() else tf.compat.v1.get_default_graph()


def compiled_by_xla() -> bool:
    """Whether what is being traced is compiled by XLA, where no array may change its shape."""
    from tensorflow.python.ops.control_flow_util import GraphOrParentsInXlaContext

    return bool(GraphOrParentsInXlaContext(graph()))


def pieces(value: Any, whole: bool, measured: bool, shape: Any = None) -> list[Any]:
    """An array whole, or its sketch, and its norm where it is measured."""
    value = dense(value)
    if shape is not None:
        value = shaped(value, shape)
    if whole or len(value.shape) == 0:  # TensorFlow's shape of a scalar is true
        return [value]
    return [sketch(value), norm(value)] if measured else [sketch(value)]


def either(whole: Any, value: Any, measured: bool, shape: Any = None) -> list[Any]:
    """As `pieces`, in a graph that is traced once for all updates: `whole` is a variable of it.

    A variable is read within: what has read it is over before its next value is assigned to it, for
    which there would be no place otherwise.
    """
    import tensorflow as tf

    def kept(whole: bool) -> Callable[[], Any]:
        return lambda: pieces(value, whole, False, shape)[0]

    return [tf.cond(whole, kept(True), kept(False))] + [norm(dense(value))] * measured


def sketch(value: Any) -> Any:
    """An array at a few indices of each axis."""
    for axis, length in enumerate(value.shape):
        value = ops.take(value, lattice(length, len(value.shape)), axis=axis)
    return value


def is_sketch(shape: Iterable[int]) -> bool:
    """Whether an array of this shape is its own sketch."""
    lengths = list(shape)
    return all(len(lattice(length, len(lengths))) == length for length in lengths)


def sketches(values: Mapping[str, Any], measured: Collection[str]) -> dict[str, Kept]:
    """Sketches of many arrays, on the host, and the norms of those that are measured.

    They are made by one program: an operation at a time, they take as long as a fifth of an update.
    """
    if not values:
        return {}
    arrays = [current(value) for value in values.values()]
    packed, norms = packer()(arrays, tuple(key in measured for key in values))
    flat = {dtype: host(array) for dtype, array in packed.items()}
    taken, measures = dict.fromkeys(flat, 0), iter(norms)
    found = {}
    for key, array in zip(values, arrays, strict=True):
        shape = [len(lattice(length, len(array.shape))) for length in array.shape]
        dtype, count = keras.backend.standardize_dtype(array.dtype), int(np.prod(shape))
        piece = flat[dtype][taken[dtype] : taken[dtype] + count].reshape(shape)
        taken[dtype] += count
        found[key] = (piece, float(host(next(measures))) if key in measured else None)
    return found


@functools.cache
def packer() -> Callable[..., Any]:
    """The program that sketches arrays, compiled where the backend compiles."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return tf.function(pack, autograph=False)
    if keras.backend.backend() == "jax":
        import jax

        return jax.jit(pack, static_argnums=1)
    return pack


def pack(arrays: list[Any], measured: Iterable[bool]) -> tuple[dict[str, Any], list[Any]]:
    """Sketches of arrays, one after the other in an array for each type, and norms of some."""
    parts: dict[str, list[Any]] = {}
    arrays = [dense(array) for array in arrays]
    for array in arrays:
        flat = ops.reshape(sketch(array), (-1,))
        parts.setdefault(keras.backend.standardize_dtype(array.dtype), []).append(flat)
    packed = {dtype: ops.concatenate(several) for dtype, several in parts.items()}
    return packed, [norm(array) for array, wanted in zip(arrays, measured, strict=True) if wanted]


def norm(value: Any) -> Any:
    """The norm of an array, in one pass: TensorFlow's product of two is ten times as slow."""
    flat = ops.reshape(value, (-1,))
    if keras.backend.standardize_dtype(flat.dtype) not in ("float32", "float64"):
        flat = ops.cast(flat, "float32")
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return tf.sqrt(2 * tf.nn.l2_loss(flat))
    return ops.sqrt(ops.dot(flat, flat))


def current(value: Any) -> Any:
    """What a variable of Keras' holds; TensorFlow's own variable, which no read copies."""
    return value.value if isinstance(value, keras.Variable) else value


def dense(value: Any) -> Any:
    """A variable's value now, and the rows of an embedding (IndexedSlices) as an array."""
    value = current(value)
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        # Keras' own conversion returns a variable as it is, and it would go on changing; what is
        # gathered from a variable is copied at each read from then on.
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
