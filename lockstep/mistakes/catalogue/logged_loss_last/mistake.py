"""Only the last micro-batch's loss is reported."""

from collections.abc import Sequence
from dataclasses import replace

from lockstep.mistakes import Mistake
from lockstep.oracle.loop import STAGES, Number, Place


def last_share(losses: Sequence[Number], at: Place) -> Number:
    """The share of the last micro-batch, without those before it."""
    return sum(losses[-1:])


def last_mean(losses: Sequence[Number], at: Place) -> Number:
    """The last micro-batch's own mean."""
    return sum(losses[-1:]) * at.window_examples / at.examples


MISTAKE = Mistake(
    title="Only the last micro-batch's loss is reported, and the parameters are right",
    explanation=(
        "The loop's variable is still there after the loop, or is overwritten in every micro-step"
        " instead of added to. It is the last share of the window's loss, or the last micro-batch's"
        " mean if the log comes before the division. Some do so on purpose, to save a"
        " synchronisation: an estimate from 1/K of the examples."
    ),
    signature=(
        "The parameters, the gradients and the state are right in every update. The first loss does"
        " not change with the first micro-batch's targets. A loss is about K times too small where"
        " it is a share, and as large as it should be but noisier where it is a mean."
    ),
    family="scaling",
    frequency=4,
    severity=1,
    stages=replace(STAGES, report=last_share),
    forms=(replace(STAGES, report=last_mean),),
    look_alikes={
        "logged-loss-divided": "another first micro-batch: there the first loss changes with it",
    },
    evidence=(
        (
            "https://github.com/karpathy/nanochat/pull/52",
            "not a bug, a deliberate choice: the training is correct otherwise",
        ),
        (
            "https://github.com/karpathy/nanochat/pull/515",
            "overwritten in every micro-step: 3/4 of the losses are discarded",
        ),
        (
            "https://github.com/allenai/allennlp/pull/4706",
            "always just the last batch's loss, divided by the number of batches",
        ),
        (
            "https://github.com/karpathy/autoresearch/pull/357",
            "the loss of the final micro-batch instead of the mean",
        ),
    ),
)
