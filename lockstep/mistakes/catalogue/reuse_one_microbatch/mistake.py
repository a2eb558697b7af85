"""One micro-batch is used K times."""

from dataclasses import replace

from lockstep.mistakes import Mistake
from lockstep.oracle.loop import STAGES, Number, Place


def first_of_window(at: Place) -> int:
    """The first micro-batch since the last update, in each of its micro-steps."""
    return at.micro_step - len(at.gradients)


def first_of_epoch(at: Place) -> int:
    """The epoch's first micro-batch, always."""
    return 0


def equal_shares(at: Place) -> Number:
    """The micro-batch's own mean, divided by the number of micro-steps."""
    return 1 / (at.examples * at.window_length)


MISTAKE = Mistake(
    title="The same micro-batch is used in every micro-step of a window",
    explanation=(
        "next(iter(loader)) starts a new iteration in every micro-step, and each of them begins"
        " with the same micro-batch; or the micro-batch is fetched before the inner loop. With a"
        " shuffled loader it is another one each time, and nobody sees that an epoch is not gone"
        " through."
    ),
    signature=(
        "Update 1 is wrong already. In the coefficient matrix each window's first column is 1 and"
        " its others are 0; where the loader starts anew, the first column of all is 1 in every"
        " row. What stands in the other micro-batches has no effect."
    ),
    family="windows",
    frequency=2,
    severity=4,
    stages=replace(STAGES, micro_batch=first_of_window),
    forms=(
        replace(STAGES, micro_batch=first_of_window, weigh=equal_shares),
        replace(STAGES, micro_batch=first_of_epoch, weigh=equal_shares),
    ),
    look_alikes={
        "zero-per-microbatch": "the coefficient matrix: there the last column is left, with 1/K",
        "boundary-off-by-one": "update 2: there a window ends, with micro-batches 2 to K + 1",
    },
    evidence=(
        (
            "https://github.com/ZhaoJ9014/face.evoLVe/pull/39",
            "it will always iterate the first batch",
        ),
        (
            "https://github.com/wandb/examples/issues/444",
            "a new iterator in each iteration, always the first batch",
        ),
        (
            "https://github.com/skhu101/GM-NAS/issues/4",
            "an epoch does not go over the entire data set",
        ),
        (
            "https://github.com/leohsuofnthu/Pytorch-IterativeFCN/issues/7",
            "only one subject; shuffling hides it",
        ),
        (
            "https://github.com/autonomousvision/stylegan-t/issues/11",
            "a question: K passes over the same data",
        ),
    ),
)
