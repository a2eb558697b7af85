"""bitwise.py with each window one compiled program.

TorchInductor needs a C++ compiler. It forbids its compiler to
contract a product and a sum into one operation, so the bits
stay the same with no flag.
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch

from . import bitwise
from .problem import Problem


def compiler(
    function: Callable[..., Any],
) -> Callable[..., Any]:
    """Compile a whole function, or raise."""
    compiled = torch.compile(function, fullgraph=True)
    # Without it, a compiled function may not call backward().
    allow_backward = torch._dynamo.config.patch(
        trace_autograd_ops=True
    )
    return allow_backward(compiled)


def train(problem: Problem) -> Iterator[list[np.ndarray]]:
    """Yield [W, b] as NumPy arrays after every update."""
    yield from bitwise.train(problem, compiler)
