"""The least time that an update could take: two products a micro-batch, and memory that is moved.

The products are a contestant of each framework. What its optimizer and its accumulator read and
write, besides, takes as long as a copy of as many bytes in arrays as large, by as many threads.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor, wait

import numpy as np

from benchmarks.peers import Contestant

COPY, LIMIT = "copy", "limit"
# W, the sum, the gradient, and Adam's two means: what a window goes through, in or out of a cache.
ARRAYS = 5
# An accumulator reads the sum and a gradient, and writes the sum; the first gradient is the sum.
ACCUMULATOR = 3
# Adam reads W, the sum and both means, and writes W and both means.
ADAM = 7
LEAST_BYTES = 1 << 26
# Of an array that is copied: of fewer, the call would be what is timed.
LEAST_PART = 1 << 15


def moved(steps: int, parameters: int) -> int:
    """The bytes that an update reads and writes beside its products.

    steps: K; parameters: their bytes.
    """
    return (ACCUMULATOR * (steps - 1) + ADAM) * parameters


class Copy:
    """Copies between arrays as large as the parameters, each thread its part of them."""

    def __init__(self, parameters: int, threads: int) -> None:
        """parameters: their bytes; threads: how many copy."""
        part = max(LEAST_PART, parameters // threads)
        self.arrays = [[np.ones(part, np.uint8) for _ in range(ARRAYS)] for _ in range(threads)]
        self.repeats = max(1, LEAST_BYTES // (2 * part * threads * ARRAYS))
        # Read, and written.
        self.bytes = 2 * part * threads * ARRAYS * self.repeats
        self.pool = ThreadPoolExecutor(threads)

    def part(self, arrays: list[np.ndarray]) -> None:
        """What one thread copies."""
        for _ in range(self.repeats):
            for into, out in zip(arrays, arrays[1:] + arrays[:1], strict=True):
                np.copyto(into, out)

    def run(self) -> None:
        """Copy all once."""
        if len(self.arrays) == 1:
            self.part(self.arrays[0])
        else:
            wait([self.pool.submit(self.part, arrays) for arrays in self.arrays])

    def contestant(self) -> Contestant:
        """Somebody whose windows are copies."""
        return Contestant(self.run)
