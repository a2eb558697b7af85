"""A window's mean is taken of its micro-batches' means."""

from dataclasses import replace

from lockstep.mistakes import Mistake
from lockstep.oracle.loop import STAGES, Number, Place


def equal_shares(at: Place) -> Number:
    """All micro-batches of a window count alike, whatever their size."""
    return 1 / (at.examples * at.window_length)


MISTAKE = Mistake(
    title="Means of micro-batches of different sizes are averaged",
    explanation=(
        "loss / K, the line of every tutorial, is the mean of the micro-batches' means. That is the"
        " window's mean only where all have the same number of examples, or of tokens that count."
        " optax.MultiSteps, Keras's gradient_accumulation_steps, Lightning and accelerate average"
        " so too: they know no sizes. Hugging Face's Trainer did so until October 2024."
    ),
    signature=(
        "Every window of micro-batches of unequal size is wrong, from update 1, and all others are"
        " right. An example weighs 1/(K n) in a micro-batch of n. The direction changes, not only"
        " the length, so that Adam does not absorb it. The coefficient matrix shows nothing: its"
        " micro-batches are equal."
    ),
    family="scaling",
    frequency=5,
    severity=4,
    stages=replace(STAGES, weigh=equal_shares),
    look_alikes={
        "weights-not-in-denominator": "no example weights: there all windows are right",
        "leftover-divided-by-k": "full windows: there they are right",
        "no-divide": "equal micro-batches: here all is right",
    },
    evidence=(
        (
            "https://github.com/huggingface/transformers/pull/34191",
            "the fix in the trainer: pass the number of items of the whole window",
        ),
        (
            "https://github.com/huggingface/blog/pull/2414",
            "losses did not match between runs with accumulation and without",
        ),
        (
            "https://github.com/meta-pytorch/torchtune/pull/1875",
            "(x1/n1) + (x2/n2) != (x1 + x2)/(n1 + n2)",
        ),
        (
            "https://github.com/karpathy/nanochat/pull/400",
            "sums of parameters for several K: the same only with the window's token count",
        ),
        (
            "https://github.com/OpenNMT/OpenNMT-py/pull/2275",
            "back from an approximation to the exact number of tokens of the whole batch",
        ),
        (
            "https://github.com/ml-explore/mlx-lm/pull/1413",
            "dividing by K is biased toward shorter examples",
        ),
    ),
)
