"""What is otherwise on a GPU: how a window ends, what memory is, and how fast it is copied.

Each function imports the framework that it is about, alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from benchmarks.peers import Contestant, nothing


def waiting(framework: str) -> Callable[[], Any]:
    """What waits until all is computed; JAX's contestants wait for their parameters themselves."""
    if framework == "pytorch":
        import torch

        return torch.cuda.synchronize
    if framework == "tensorflow":
        import tensorflow as tf

        return tf.test.experimental.sync_devices
    return nothing


def until_computed(contestant: Contestant, wait: Callable[[], Any]) -> Contestant:
    """The same, who waits after each window; a library with a block of its own reads its loss."""

    def window() -> None:
        contestant.window()
        wait()

    return replace(contestant, window=window)


def copying(framework: str, count: int) -> Contestant:
    """Somebody who copies so many numbers of float32 on the device, once a window."""
    if framework == "pytorch":
        import torch

        out, into = torch.ones(count), torch.empty(count)
        return Contestant(lambda: into.copy_(out))
    if framework == "tensorflow":
        import tensorflow as tf

        # As many bytes as a copy, which TensorFlow would not make of what never changes.
        raised: Any = tf.function(lambda x: x + 1.0, jit_compile=True)
        numbers = tf.ones(count)
        return Contestant(lambda: raised(numbers))
    import jax
    import jax.numpy as jnp

    array, copy = jnp.ones(count, jnp.float32), jax.jit(jnp.copy)
    return Contestant(lambda: jax.block_until_ready(copy(array)))


def memory(framework: str) -> tuple[int, int]:
    """The bytes of the GPU's memory that are in use, and the most that were so far."""
    if framework == "pytorch":
        import torch

        return torch.cuda.memory_allocated(), torch.cuda.max_memory_allocated()
    if framework == "tensorflow":
        import tensorflow as tf

        found = tf.config.experimental.get_memory_info("GPU:0")
        return found["current"], found["peak"]
    import jax

    found = jax.devices()[0].memory_stats()
    return found["bytes_in_use"], found["peak_bytes_in_use"]
