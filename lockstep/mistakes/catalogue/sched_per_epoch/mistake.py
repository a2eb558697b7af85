"""The schedule advances once an epoch."""

from dataclasses import replace

from lockstep.mistakes import Mistake
from lockstep.oracle.loop import STAGES, Number, Place, rate_of


def rate_by_epoch(at: Place) -> Number:
    """The learning rate at the epoch's number, from 0."""
    return rate_of(at.problem, at.epoch)


MISTAKE = Mistake(
    title="The schedule advances once an epoch",
    explanation=(
        "Many schedules of torch.optim.lr_scheduler count epochs, their argument is called epoch,"
        " and Lightning steps a scheduler every epoch unless its interval is 'step'. A schedule"
        " with a warm-up, or a OneCycleLR, has a length in updates: stepped once an epoch, it"
        " never leaves the warm-up."
    ),
    signature=(
        "The learning rate is constant within an epoch: all updates of epoch e have the rate of"
        " update e. With a warm-up from 0, nothing at all moves in the first epoch."
    ),
    family="schedule",
    frequency=4,
    severity=4,
    stages=replace(STAGES, learning_rate=rate_by_epoch),
    look_alikes={
        "sched-too-slow": (
            "an epoch whose number of windows is not K: there the rate changes every K updates, or"
            " in every update"
        ),
        "schedule-ignored": "a second epoch, or a warm-up: there the rate never changes",
        "never-updates": "a warm-up: without one, this one moves",
    },
    evidence=(
        (
            "https://github.com/pytorch/pytorch/issues/65417",
            "OneCycleLR stepped once an epoch follows a fraction of its schedule",
        ),
        (
            "https://github.com/ace-step/ACE-Step/pull/198",
            "without interval 'step', the warm-up takes 4000 epochs",
        ),
        (
            "https://github.com/galilai-group/stable-worldmodel/issues/280",
            "a length in updates with interval 'epoch': it may stay in the warm-up",
        ),
        (
            "https://github.com/rpryzant/causal-bert-pytorch/issues/9",
            "a proposal to step per epoch, declined: the schedule counts updates",
        ),
        (
            "https://github.com/huggingface/transformers/issues/2375",
            "confusion: PyTorch's documentation steps per epoch, the schedule per update",
        ),
    ),
)
