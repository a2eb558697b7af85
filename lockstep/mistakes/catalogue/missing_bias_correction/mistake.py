"""Adam's moments are used as they are."""

from dataclasses import replace

from lockstep.mistakes import Mistake
from lockstep.oracle.loop import STAGES, Number, Place, constants
from lockstep.oracle.rules import Constants


def uncorrected(rate: Number, at: Place) -> Constants:
    """Adam's numbers without the correction of m and of v."""
    numbers = constants(rate, at)
    if at.problem.optimizer.name in ("adam", "adamw"):
        numbers |= {"unbias": at.number(1), "step": rate}
    return numbers


def v_uncorrected(rate: Number, at: Place) -> Constants:
    """Without the correction of v, which works like a larger rate."""
    numbers = constants(rate, at)
    if at.problem.optimizer.name in ("adam", "adamw"):
        numbers["unbias"] = at.number(1)
    return numbers


MISTAKE = Mistake(
    title="Adam's moments are used without bias correction",
    explanation=(
        "m and v start at 0, and are too small at first; nobody divides them by 1 - beta^t. It is"
        " left out because it looks like a detail, or because BERT's optimizer has none: BertAdam"
        " followed it, mlx began without, and a warm-up hides it. Or only m is corrected."
    ),
    signature=(
        "Update 1 is the first to differ: it is (1 - beta1) / sqrt(1 - beta2) of the learning"
        " rate, 3.16 for 0.9 and 0.999, and 0.447 for 0.9 and 0.95. The factor at update t is (1 -"
        " beta1^t) / sqrt(1 - beta2^t), for 0.9 and 0.999 6.5 at update 10, 3.2 at 100, 1.26 at"
        " 1000. It goes to 1. m, v and the step in the state are right, and here Adamax and NAdam"
        " too."
    ),
    family="optimizer",
    frequency=3,
    severity=3,
    stages=replace(STAGES, constants=uncorrected),
    forms=(replace(STAGES, constants=v_uncorrected),),
    look_alikes={
        "frozen-step-counter": "update 1 is right there, and later ones are not",
        "bias-step-off-by-one": "update 1 is 0.744 times as large there, for 0.9 and 0.999",
        "adam-eps-hat": "with eps = 0 it is right there",
    },
    evidence=(
        (
            "https://github.com/google-research/bert/issues/153",
            "this was mostly an oversight, but doesn't really matter with a warmup",
        ),
        (
            "https://github.com/ml-explore/mlx/pull/1640",
            "the original AdamW doesn't include bias correction; this causes problems",
        ),
        (
            "https://github.com/oxiglade/mlx-rs/issues/301",
            "missing bias correction in Adam variants",
        ),
        (
            "https://github.com/huggingface/transformers/issues/420",
            "BertAdam doesn't compensate for bias as in the regular Adam optimizer",
        ),
        (
            "https://github.com/keras-team/keras/pull/10129",
            "a request to add it to an Adam that had it, in the learning rate",
        ),
    ),
)
