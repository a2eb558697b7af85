"""Decoupled weight decay shrinks by wd instead of lr wd."""

from dataclasses import replace

from lockstep.mistakes import Mistake
from lockstep.oracle.loop import STAGES, Number, Place, constants
from lockstep.oracle.rules import Constants


def without_rate(rate: Number, at: Place) -> Constants:
    """The decay that a learning rate of 1 would have."""
    return constants(rate, at) | {"decay": constants(at.number(1), at)["decay"]}


MISTAKE = Mistake(
    title="Decoupled weight decay shrinks by wd instead of lr wd",
    explanation=(
        "The paper's AdamW multiplies the decay by the schedule alone, and tfa.optimizers.AdamW"
        " by nothing; torch.optim, Keras and optax multiply it by the learning rate. A value that"
        " was taken from one to the other decays 1/lr times too much, or too little. In optax,"
        " add_decayed_weights after scale_by_learning_rate does it."
    ),
    signature=(
        "Parameters whose gradient is zero shrink by wd of themselves in every update, 1/lr times"
        " too much, and by the same share when the learning rate changes. Coupled decay, in the"
        " gradient, is right."
    ),
    family="decay",
    frequency=3,
    severity=4,
    stages=replace(STAGES, constants=without_rate),
    look_alikes={
        "wd-per-microstep": "K = 1, or another learning rate: the factor is K there, not 1/lr",
        "l2-vs-decoupled": (
            "parameters whose gradient is zero: under Adam they move by about lr there, whatever"
            " their size"
        ),
    },
    evidence=(
        (
            "https://github.com/tensorflow/addons/issues/2282",
            "weight decay is not multiplied by the learning rate, unlike PyTorch's",
        ),
        (
            "https://github.com/tensorflow/addons/issues/1902",
            "the documentation: apply the learning rate's decay to weight_decay by hand",
        ),
        (
            "https://github.com/tensorflow/addons/issues/844",
            "with a decaying rate, the decay wins in the end",
        ),
        (
            "https://github.com/pytorch/pytorch/pull/3740",
            "wd times lr or wd times the schedule: the paper has the latter",
        ),
        (
            "https://github.com/NVIDIA/apex/issues/1849",
            "asks for a decay that the learning rate does not change",
        ),
        (
            "https://github.com/egg-west/AdamW-pytorch/issues/1",
            "proposes to drop the learning rate from the decay",
        ),
    ),
)
