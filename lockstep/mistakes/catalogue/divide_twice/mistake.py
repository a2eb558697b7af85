"""A mean is divided by the number of micro-batches once more."""

from dataclasses import replace

from lockstep.mistakes import Mistake
from lockstep.oracle.loop import STAGES, Number, Place, Theta, weigh


def divide_again(accumulator: Theta, at: Place) -> Theta:
    """Average over the window's micro-batches, whose terms were shares of a mean already."""
    return accumulator / len(at.gradients)


def divide_by_k(accumulator: Theta, at: Place) -> Theta:
    """The same as a library does it, which knows K only."""
    return accumulator / at.problem.accumulation_steps


def share_of_share(at: Place) -> Number:
    """The same of each micro-batch, before anything is summed."""
    return weigh(at) / at.window_length


MISTAKE = Mistake(
    title="Divided by the window's examples, and by K once more",
    explanation=(
        "The loss is divided by the script, and the gradient again by the library, or the other way"
        " round: accelerator.backward() and DeepSpeed's engine divide by K, and so do"
        " optax.MultiSteps, with use_grad_mean by default, and Keras's gradient_accumulation_steps."
    ),
    signature=(
        "Update 1 is wrong already. The coefficient matrix has blocks of 1/K² instead of 1/K, and a"
        " partial window of length r has 1/r², or 1/(rK) where a library divides. Every full"
        " window's gradient is K times too small, for SGD a learning rate K times too small; Adam"
        " moves as if eps were K eps. With K = 1 all is right."
    ),
    family="scaling",
    frequency=4,
    severity=3,
    stages=replace(STAGES, normalise=divide_again),
    forms=(replace(STAGES, normalise=divide_by_k), replace(STAGES, weigh=share_of_share)),
    look_alikes={
        "mean-of-means": "equal micro-batches: there all is right, and here nothing is",
        "zero-per-microbatch": "another first micro-batch: there no update changes",
        "leftover-divided-by-k": "a full window: there it is right",
        "mean-over-outputs": "K = 1: here all is right",
        "momentum-ema": "no momentum: there all is right",
    },
    evidence=(
        (
            "https://github.com/huggingface/accelerate/issues/3533",
            "accelerator.backward divides, and the trainer that calls it does",
        ),
        ("https://github.com/deepspeedai/Megatron-DeepSpeed/pull/42", "a double scaling bug"),
        (
            "https://github.com/huggingface/transformers/pull/35808",
            "the gradient's norm depends on K under DeepSpeed",
        ),
        (
            "https://github.com/unslothai/unsloth-zoo/pull/1023",
            "both the loss and the gradients were scaled by 1/K",
        ),
        (
            "https://github.com/llm-random/llm-random/pull/529",
            "the losses were divided already, elsewhere",
        ),
    ),
)
