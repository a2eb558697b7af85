"""What PyTorch has no hook for: `backward()`, compiled models, the scaler in half precision.

While a recorder is open, `torch.autograd.backward`, which `Tensor.backward` calls, the call of a
compiled model and two methods of `GradScaler` also tell the recorders; they do what they did.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch

RECORDERS: list[Any] = []
# What stands in place of what: (owner, name, original, replacement).
REPLACED: list[tuple[Any, str, Any, Any]] = []
# How many backward passes are under way, one within the other, as in activation checkpointing.
DEPTH = [0]


def watch(recorder: Any) -> None:
    """Tell a recorder from now on."""
    RECORDERS.append(recorder)
    if not REPLACED:
        scaler = torch.amp.GradScaler
        replace(torch.autograd, "backward", around_backward)
        replace(scaler, "scale", around_scale)
        replace(scaler, "step", around_step)
        # Loaded already: every optimizer does it.
        from torch._dynamo.eval_frame import OptimizedModule

        replace(OptimizedModule, "__call__", around_call)


def forget(recorder: Any) -> None:
    """Tell a recorder no more; with the last one, everything is as it was."""
    if recorder in RECORDERS:
        RECORDERS.remove(recorder)
    if not RECORDERS:
        for owner, name, original, replacement in REPLACED:
            # Who has wrapped it since calls the replacement, which then does nothing more.
            if getattr(owner, name) is replacement:
                setattr(owner, name, original)
        REPLACED.clear()


def replace(owner: Any, name: str, around: Callable[[Any], Any]) -> None:
    """Put a function in another's place."""
    original = getattr(owner, name)
    replacement = functools.wraps(original)(around(original))
    setattr(owner, name, replacement)
    REPLACED.append((owner, name, original, replacement))


def around_backward(original: Any) -> Any:
    """`torch.autograd.backward`, before which a recorder sees the targets, and then the loss."""

    def backward(tensors: Any, *arguments: Any, **options: Any) -> Any:
        for recorder in () if DEPTH[0] else tuple(RECORDERS):
            recorder.backward_begins(tensors)
        DEPTH[0] += 1
        try:
            done = original(tensors, *arguments, **options)
        finally:
            DEPTH[0] -= 1
        if not DEPTH[0]:
            for recorder in tuple(RECORDERS):
                recorder.backward_done(tensors)
        return done

    return backward


def around_call(original: Any) -> Any:
    """The call of what `torch.compile` has made of a module: hooks inside are compiled away."""

    def call(self: Any, *arguments: Any, **options: Any) -> Any:
        if torch.compiler.is_compiling():
            return original(self, *arguments, **options)
        for recorder in RECORDERS:
            recorder.compiled_called(self, arguments, options)
        try:
            return original(self, *arguments, **options)
        finally:
            for recorder in RECORDERS:
                recorder.compiled_returns(self)

    return call


def around_scale(original: Any) -> Any:
    """`GradScaler.scale`, of which the recorders keep whose scale it is."""

    def scale(self: Any, outputs: Any) -> Any:
        if self.is_enabled():
            for recorder in RECORDERS:
                recorder.scaler = self
        return original(self, outputs)

    return scale


def around_step(original: Any) -> Any:
    """`GradScaler.step`, which may leave out the optimizer's, and calls no hook then."""

    def step(self: Any, optimizer: Any, *arguments: Any, **options: Any) -> Any:
        watching = tuple(RECORDERS) if self.is_enabled() else ()
        for recorder in watching:
            recorder.scaler_steps(self)
        done = original(self, optimizer, *arguments, **options)
        for recorder in watching:
            recorder.scaler_stepped(optimizer)
        return done

    return step
