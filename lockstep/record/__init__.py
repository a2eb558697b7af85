"""Recorders of real runs: what a training loop does, update by update, in files.

It knows the framework at hand, NumPy and safetensors, and must not need anything else: it runs in
other people's training environments. Nothing in it changes a bit of the run.

    recorder = lockstep.record.torch("run-a/", model, optimizer)
    recorder = lockstep.record.jax("run-b/")
    recorder = lockstep.record.keras("run-c/", model)
"""

from __future__ import annotations

from typing import Any


def torch(folder: Any, model: Any, *optimizers: Any, **options: Any) -> Any:
    """Record a run in PyTorch: see `lockstep.record.pytorch.Recorder`."""
    from lockstep.record.pytorch import Recorder

    return Recorder(folder, model, *optimizers, **options)


def jax(folder: Any, **options: Any) -> Any:
    """Record a run in JAX, with optax: see `lockstep.record.optax.Recorder`."""
    from lockstep.record.optax import Recorder

    return Recorder(folder, **options)


def keras(folder: Any, model: Any, **options: Any) -> Any:
    """Record a run in Keras: see `lockstep.record.keras_callback.Recorder`."""
    from lockstep.record.keras_callback import Recorder

    return Recorder(folder, model, **options)
