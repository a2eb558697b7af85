"""The schedule counts micro-steps instead of updates."""

from dataclasses import replace

from lockstep.mistakes import Mistake
from lockstep.oracle.loop import STAGES, Number, Place, rate_of


def done(at: Place) -> int:
    """How many micro-steps there were, with the last of this window."""
    return at.epoch * at.micro_steps + at.micro_step + 1


def rate_after(at: Place) -> Number:
    """Looked up after the window's last micro-step was counted."""
    return rate_of(at.problem, done(at))


def rate_before(at: Place) -> Number:
    """Looked up before the window's last micro-step was counted."""
    return rate_of(at.problem, done(at) - 1)


def rate_at_start(at: Place) -> Number:
    """Looked up before the window."""
    return rate_of(at.problem, done(at) - at.window_length)


def rate_times_k(at: Place) -> Number:
    """Looked up at K times the number of updates, whatever the windows' lengths."""
    return rate_of(at.problem, at.update * at.problem.accumulation_steps)


MISTAKE = Mistake(
    title="The schedule counts micro-steps instead of updates",
    explanation=(
        "scheduler.step() stands in the loop over micro-batches, outside of the branch that"
        " updates; or the schedule is chained outside of optax.MultiSteps; or its argument is the"
        " loop's own counter. Warm-up and decay are K times as short as they were meant to be, so"
        " that the larger K is, the sooner the learning rate is zero."
    ),
    signature=(
        "The ratio of an update to its gradient follows the schedule at every K-th value: s(K),"
        " s(2K), ... where the count has the window's last micro-step, s(K - 1), s(2K - 1), ..."
        " where it has not yet, s(0), s(K), ... where it is looked up before the window. Nothing"
        " differs with K = 1, but for the first, or at a constant rate."
    ),
    family="schedule",
    frequency=5,
    severity=4,
    stages=replace(STAGES, learning_rate=rate_after),
    forms=(
        replace(STAGES, learning_rate=rate_before),
        replace(STAGES, learning_rate=rate_at_start),
        replace(STAGES, learning_rate=rate_times_k),
    ),
    look_alikes={
        "keras-schedule-counts-microsteps": (
            "none where all windows are full: the second form is what Keras does there"
        ),
        "sched-off-by-one": "K = 1 or K = 3 instead of 2: the shift is one update whatever K is",
        "step-every-microbatch": "a constant learning rate: this one is right there",
    },
    evidence=(
        (
            "https://github.com/Lightning-AI/pytorch-lightning/issues/1476",
            "a warm-up of 16000 updates was over after 1000, with K = 16",
        ),
        (
            "https://github.com/starVLA/starVLA/pull/210",
            "the scheduler advanced K times faster than intended",
        ),
        (
            "https://github.com/h2oai/h2o-llmstudio/issues/663",
            "an update every 10 micro-batches, and the scheduler every one",
        ),
        (
            "https://github.com/huggingface/accelerate/issues/963",
            "the scheduler always steps, with gradient accumulation too",
        ),
        (
            "https://github.com/ivadomed/ivadomed/pull/55",
            "the scheduler was stepped in the batch loop by mistake",
        ),
    ),
)
