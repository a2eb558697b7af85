"""bitwise.py with each window one compiled program.

Grappler, the graph optimizer, would turn x / sqrt(v) into
x * rsqrt(v) and fold constants, each with another rounding.
It is switched off for the process: TensorFlow has no switch
for one function.
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from . import bitwise
from .problem import Problem


def compiler(
    function: Callable[..., Any],
) -> Callable[..., Any]:
    """Trace a function into a graph that is run as it is."""
    return tf.function(function, autograph=False)


def train(problem: Problem) -> Iterator[list[np.ndarray]]:
    """Yield [W, b] as NumPy arrays after every update."""
    tf.config.optimizer.set_experimental_options(
        {"disable_meta_optimizer": True}
    )
    yield from bitwise.train(problem, compiler)
