"""bitwise.py with each window one compiled program.

XLA fuses elementary operations into one loop, in which LLVM
contracts a product and a sum into one operation with one
rounding; and its algebraic simplifier makes 1 / sqrt(v) an
rsqrt(v). Without these two, operations round as they stand.
"""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from . import bitwise
from .problem import Problem


def compiler(
    function: Callable[..., Any],
) -> Callable[..., Any]:
    """Compile the operations as they are written."""
    options = {"xla_disable_hlo_passes": "fusion,algsimp"}
    return jax.jit(function, compiler_options=options)


def train(problem: Problem) -> Iterator[list[np.ndarray]]:
    """Yield [W, b] as NumPy arrays after every update."""
    yield from bitwise.train(problem, compiler)
