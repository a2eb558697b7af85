"""Windows of one shape, which take one compilation.

A program is compiled for the shapes of its input, and ragged
or partial windows have many. All are padded to the run's
longest window and its longest micro-batch: what is not there
has weight 0, and zeros, so that its error is finite.
"""

from collections.abc import Iterator, Sequence

from torch import Tensor

from .data import Weighted, windows_of_run
from .problem import Problem


def padded_windows(
    epoch: list[Weighted], problem: Problem
) -> Iterator[Sequence[Tensor]]:
    """Yield x, y and weights, (steps, examples, columns)."""
    run = list(windows_of_run(epoch, problem))
    steps = max(map(len, run), default=0)
    examples = max(len(x) for x, _ in problem.micro_batches)
    for window in run:
        yield [
            stack(arrays, steps, examples)
            for arrays in zip(*window)
        ]


def stack(
    arrays: Sequence[Tensor], steps: int, examples: int
) -> Tensor:
    """Stack (length, columns) of any length, and zeros."""
    shape = steps, examples, arrays[0].shape[1]
    # Of their dtype, and on their device.
    stacked = arrays[0].new_zeros(shape)
    for place, array in zip(stacked, arrays):
        place[: len(array)] = array
    return stacked
