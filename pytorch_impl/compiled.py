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


def compiler(
    function: Callable[..., Any],
) -> Callable[..., Any]:
    """Compile a whole function, or raise."""
    return torch.compile(function, fullgraph=True)


def train(problem: Any) -> Iterator[list[np.ndarray]]:
    """Yield [W, b] as NumPy arrays after every update."""
    # Without it, a compiled function may not call backward().
    with torch._dynamo.config.patch(trace_autograd_ops=True):
        yield from bitwise.train(problem, compiler)
