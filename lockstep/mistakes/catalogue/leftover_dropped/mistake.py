"""An epoch's partial window is dropped."""

from dataclasses import replace

from lockstep.mistakes import Mistake
from lockstep.oracle.loop import STAGES, Place
from lockstep.problem import Problem


def drop(problem: Problem) -> Problem:
    """Drop what was to be applied."""
    whole = problem.accumulation_steps <= len(problem.micro_batches)
    if problem.partial_windows == "apply" and whole:
        return replace(problem, partial_windows="drop")
    return problem


def whole(at: Place) -> bool:
    """Whether the micro-step is the last of K; the end of an epoch shorter than K is not."""
    return at.position + 1 == at.problem.accumulation_steps


MISTAKE = Mistake(
    title="An epoch's partial window is dropped",
    explanation=(
        "An epoch of N micro-batches gets N // K updates, and the N mod K micro-batches that are"
        " left over never enter one. Their gradients are computed and thrown away, because the"
        " accumulator is emptied at the start of the next epoch. Some trainers do so by design;"
        " it is a mistake where the loop that is ported applies the partial window."
    ),
    signature=(
        "There are too few updates: N // K an epoch, none at all where K is larger than N. The"
        " first to differ is the one in place of the first partial window. In the coefficient"
        " matrix the last N mod K columns of every epoch are empty. Where N is a multiple of K"
        " nothing differs."
    ),
    family="windows",
    frequency=5,
    severity=3,
    stages=replace(STAGES, settings=drop, boundary=whole),
    look_alikes={
        "leftover-leaks": "the first update of the second epoch: K micro-batches here, K + N mod K"
        " there",
        "leftover-carried": "the second epoch's first update: it begins with the first micro-batch"
        " here, with a left-over one there",
        "never-updates": "an epoch of K micro-batches: updated here",
    },
    evidence=(
        ("https://github.com/ultralytics/ultralytics/pull/11217", "24 of 120 were lost"),
        (
            "https://github.com/tracel-ai/burn/issues/5695",
            "drops the final partial window; no update at all where K is longer than the epoch",
        ),
        (
            "https://github.com/NVIDIA-NeMo/Automodel/pull/2257",
            "the trailing micro-batches reached backward, but never an update",
        ),
        ("https://github.com/timoschick/pet/issues/36", "some gradients are lost"),
        (
            "https://github.com/mflux-community/mflux/pull/447",
            "in review: the final micro-batches make no contribution",
        ),
        ("https://github.com/hpcaitech/ColossalAI/pull/1030", "drops them by design"),
    ),
)
