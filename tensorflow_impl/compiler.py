"""A window's program, as fast as TensorFlow calls it."""

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from .data import Parameters
from .problem import Problem


def in_xla(
    program: Callable[..., Any],
    parameters: Parameters,
    problem: Problem,
) -> Callable[..., Any]:
    """Compile what takes a window, and a scale or None.

    XLA runs a small window's program in half the time of
    its graph, and a large one's in the same. A concrete
    function takes no other types, and looks for none: that
    takes as long as a small window.
    """
    window = [
        tf.TensorSpec((None, None, columns), problem.dtype)
        for columns in (*parameters[0].shape, 1)
    ]
    scale = None
    if problem.loss_scale:
        scale = tf.TensorSpec((), problem.dtype)
    function = tf.function(program, jit_compile=True)
    return function.get_concrete_function(window, scale)
