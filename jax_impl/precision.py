"""Float64 for a run, and not for everybody who imports this.

Without it, JAX makes float32 of float64 without a word.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any

import jax
from jax import experimental

Train = Callable[..., Iterator[Any]]


@contextmanager
def float64() -> Iterator[None]:
    """Let JAX have float64 for as long as it lasts."""
    # Before jax 0.8, it stood among the experiments.
    home = jax if hasattr(jax, "enable_x64") else experimental
    with home.enable_x64(True):
        yield


def in_float64(train: Train) -> Train:
    """Let a run have float64, but only while it computes.

    Between two updates its caller computes, as it likes.
    """

    @wraps(train)
    def run(*arguments: Any) -> Iterator[Any]:
        trajectory = train(*arguments)
        while True:
            with float64():
                found = next(trajectory, None)
            if found is None:
                return
            yield found

    return run
