"""The accumulator has fewer bits than the parameters."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from lockstep.mistakes import Mistake
from lockstep.oracle.loop import STAGES, Place, Theta
from lockstep.problem import Array

Accumulate = Callable[[Theta, Theta, Place], Theta]


def rounded_to(dtype: str, numbers: Array) -> Array:
    """The numbers as a dtype holds them; those that carry their error keep it."""
    if numbers.dtype != object:
        return numbers.astype(dtype).astype(numbers.dtype)
    values = numbers.astype(float).astype(dtype).astype(float)
    return np.frompyfunc(like, 2, 1)(numbers, values)


def like(number: Any, value: float) -> Any:
    """A number with another value, and the same error."""
    make = type(number)
    return make(value, number.error) if hasattr(number, "error") else make(value)


def accumulating_in(dtype: str) -> Accumulate:
    """Accumulate in a dtype."""

    def accumulate(accumulator: Theta, gradient: Theta, at: Place) -> Theta:
        """Round the gradient, and round the sum."""
        return rounded_to(dtype, accumulator + rounded_to(dtype, gradient))

    return accumulate


def round_between(accumulator: Theta, gradient: Theta, at: Place) -> Theta:
    """MultiSteps: float32 is what it stores, and the last micro-batch is added in full."""
    return stored(accumulator + gradient, at)


def round_means(accumulator: Theta, gradient: Theta, at: Place) -> Theta:
    """The same with use_grad_mean, its default: what it stores is a running mean."""
    mean = gradient * at.window_length
    return stored(accumulator + (mean - accumulator) / len(at.gradients), at)


def stored(accumulator: Theta, at: Place) -> Theta:
    """Rounded to float32, unless it is used at once."""
    return accumulator if at.stages.boundary(at) else rounded_to("float32", accumulator)


MISTAKE = Mistake(
    title="The accumulator has fewer bits than the parameters",
    explanation=(
        "A sum of your own has the dtype that you gave its zeros: torch.zeros and tf.zeros make"
        " float32, and optax.MultiSteps has accumulator_dtype=float32, whatever the parameters"
        " are. (MultiSteps rounds what it stores; the last micro-batch of a window is added in"
        " full.) With parameters or buffers in bfloat16, a sum of many small gradients stops"
        " growing: each is less than half of its last bit."
    ),
    signature=(
        "Every gradient is off by up to the unit roundoff of the accumulator's dtype, 6e-8"
        " relative for float32 and 4e-3 for bfloat16, with either sign and more for a larger K."
        " Nothing differs where all sums are exact in that dtype."
    ),
    family="precision",
    frequency=4,
    severity=3,
    stages=replace(STAGES, accumulate=accumulating_in("float32")),
    forms=(
        replace(STAGES, accumulate=round_between),
        replace(STAGES, accumulate=round_means),
        replace(STAGES, accumulate=accumulating_in("bfloat16")),
        replace(STAGES, accumulate=accumulating_in("float16")),
    ),
    look_alikes={
        "float32-settings": (
            "K = 1 with a learning rate that float32 holds: that one is right there, and has a"
            " relative error of one sign in all parameters elsewhere"
        ),
    },
    evidence=(
        (
            "https://github.com/deepspeedai/DeepSpeed/issues/2768",
            "training diverges at times when accumulating in bfloat16",
        ),
        (
            "https://github.com/linkedin/Liger-Kernel/pull/830",
            "gradients were accumulated chunk by chunk in bfloat16",
        ),
        (
            "https://github.com/mlnomadpy/flaxchat/issues/6",
            "zeros_like of bfloat16 parameters as buffers: small contributions are lost",
        ),
        (
            "https://github.com/NVIDIA/Megatron-LM/issues/502",
            "why bfloat16 needs its gradients accumulated in float32",
        ),
        (
            "https://github.com/google-deepmind/optax/issues/1567",
            "bfloat16 parameters with MultiSteps are stuck",
        ),
    ),
)
