"""The reported loss is divided by the number of micro-batches once more."""

from collections.abc import Sequence
from dataclasses import replace

from lockstep.mistakes import Mistake
from lockstep.oracle.loop import STAGES, Number, Place, report


def divided(losses: Sequence[Number], at: Place) -> Number:
    """Average what are shares already."""
    return report(losses, at) / at.window_length


def divided_by_k(losses: Sequence[Number], at: Place) -> Number:
    """The same with K, in partial windows too."""
    return report(losses, at) / at.problem.accumulation_steps


MISTAKE = Mistake(
    title="The reported loss is divided by K, and the parameters are right",
    explanation=(
        "backward() needs the loss divided by K, and the log is given that same number, or the sum"
        " of such shares is averaged once more. Nothing is wrong with the training, but two runs"
        " with different K cannot be compared, nor the training loss with the validation loss."
    ),
    signature=(
        "The parameters, the gradients and the state are right in every update. The loss is K times"
        " too small, from update 1 on; with K = 1 it is right."
    ),
    family="scaling",
    frequency=4,
    severity=1,
    stages=replace(STAGES, report=divided),
    forms=(replace(STAGES, report=divided_by_k),),
    look_alikes={
        "logged-loss-last": "micro-batches with different losses: there the loss is the last one's",
        "divide-twice": "the parameters: there they are wrong",
    },
    evidence=(
        (
            "https://github.com/BottleCapAI/NoCap-Test/pull/2",
            "divided in the loop and after it: 0.34 instead of 10.9",
        ),
        (
            "https://github.com/espnet/espnet/issues/5090",
            "divided before it is reported: cannot be compared with the validation loss",
        ),
        (
            "https://github.com/huggingface/transformers/pull/527",
            "the logged loss is scaled by 1/K",
        ),
        (
            "https://github.com/PrimeIntellect-ai/prime-rl/pull/909",
            "the scaled loss of a micro-step was reported",
        ),
        (
            "https://github.com/karpathy/nanoGPT/pull/207",
            "multiplied by K again before it is printed",
        ),
    ),
)
