"""Weighted examples are divided by their count."""

from dataclasses import replace

from lockstep.mistakes import Mistake
from lockstep.oracle.loop import STAGES, Number, Place


def by_number(weights: Number, rows: int, at: Place) -> Number:
    """All examples count alike, padding included."""
    return at.number(rows)


def own_weights(at: Place) -> Number:
    """Divide by a micro-batch's own weights, and give it the share of its count."""
    return at.number(at.rows) / (at.examples * at.window_rows)


MISTAKE = Mistake(
    title="A weighted sum is divided by the number of examples, not by their weights",
    explanation=(
        "(loss * mask).mean() divides by everything, padding included, and so does the reduction"
        ' "sum_over_batch_size" of Keras with sample_weight. PyTorch\'s weighted cross entropy'
        " divides by the weights, but by those of the micro-batch alone: in one of a single example"
        " its weight cancels. Neither is the weighted mean of the window."
    ),
    signature=(
        "Without weights all is right. With them a window's gradient keeps its direction and is off"
        " by the sum of its weights divided by its number of examples, another factor in every"
        " window. Where each micro-batch is divided by its own weights, the direction changes too."
    ),
    family="scaling",
    frequency=3,
    severity=3,
    stages=replace(STAGES, count=by_number),
    forms=(replace(STAGES, weigh=own_weights),),
    look_alikes={
        "weights-ignored": "other targets where the weight is 0: there the update changes",
        "mean-of-means": "ragged windows without weights: there they are wrong",
    },
    evidence=(
        (
            "https://github.com/keras-team/keras/issues/19740",
            "not computed by dividing by the sum of the sample weights",
        ),
        (
            "https://github.com/keras-team/keras/issues/15323",
            "incorrect with masking, and with any kind of sample weights",
        ),
        (
            "https://github.com/pytorch/pytorch/issues/72047",
            "class weights and accumulation: no longer the gradient of the large batch",
        ),
        (
            "https://github.com/pytorch/pytorch/issues/50528",
            "with a batch size of 1 the weight does nothing",
        ),
        (
            "https://github.com/pytorch/pytorch/issues/40560",
            "the weighted mean is not the mean of the weighted losses",
        ),
    ),
)
