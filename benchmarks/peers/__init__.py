"""Who takes part in `python -m benchmarks`: the same update by each, on the same problem.

A module for each framework, and one for NumPy, has `CONTESTANTS`: functions, by name, that take a
problem and return a `Contestant`. They are imported by the process that measures them alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from lockstep.problem import Problem, split
from lockstep.problem.settings import Optimizer

# Examples of a micro-batch, by (features, outputs).
EXAMPLES = {(4, 3): 8, (512, 256): 64, (2048, 2048): 64}
# The longest block, for the learning rates of a run are listed.
UPDATES = 4096
# So large that the size of a gradient shows in Adam's update, which with a small one hides it.
EPS = 0.1
BETAS = (0.9, 0.999)
RATE = 1e-3

# K of each size; 8 is where a goal compares with NumPy's loop, which is asked for the first size.
STEPS = (1, 4, 16, 64)
SMALL_STEPS = (1, 4, 8, 16, 64)

BY_HAND, READABLE, FAST, PRODUCTS = "by hand", "training.py", "fast.py", "products"
# Where a framework multiplies in two ways, of which the faster is the limit's.
COMPILED_PRODUCTS = "products, compiled"


def timed(windows: int, window: Callable[[], Any]) -> float:
    """The seconds of so many windows."""
    began = time.perf_counter()
    for _ in range(windows):
        window()
    return time.perf_counter() - began


def nothing() -> None:
    """What most need before a block."""


@dataclass(frozen=True)
class Contestant:
    """Somebody who takes updates.

    window: takes one update, and waits for it; parameters: W and b in NumPy, None for who takes no
    update; rewind: what to do before a block, so that none is longer than the rates that are
    listed; block: the seconds of so many windows, where nobody but a library can call one.
    """

    window: Callable[[], Any]
    parameters: Callable[[], list[Any]] | None = None
    rewind: Callable[[], Any] = nothing
    block: Callable[[int], float] | None = None

    def seconds(self, windows: int) -> float:
        """The seconds of so many windows, at most UPDATES."""
        self.rewind()
        return self.block(windows) if self.block else timed(windows, self.window)


def problem(size: tuple[int, int], steps: int) -> Problem:
    """One window of equal micro-batches of random numbers, often, with Adam in float32.

    Raises KeyError for a size that EXAMPLES has not.
    """
    features, outputs = size
    examples = EXAMPLES[size]
    rng = np.random.default_rng(0)
    shapes = (steps * examples, features), (steps * examples, outputs), size
    x, y, W = (rng.standard_normal(shape, np.float32) for shape in shapes)
    return Problem(
        W / features**0.5,
        np.zeros(outputs),
        split(x, y, [examples] * steps),
        epochs=UPDATES,
        accumulation_steps=steps,
        optimizer=Optimizer("adam", RATE, betas=BETAS, eps=EPS),
        dtype="float32",
    )
