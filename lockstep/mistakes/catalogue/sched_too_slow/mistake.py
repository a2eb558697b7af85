"""The schedule takes K times as long as it should."""

from dataclasses import replace

from lockstep.mistakes import Mistake
from lockstep.oracle.loop import STAGES, Number, Place, rate_of
from lockstep.problem import Problem


def stretched(problem: Problem) -> Problem:
    """Warm-up and length in micro-steps, though the schedule advances once an update."""
    k, schedule = problem.accumulation_steps, problem.schedule
    if schedule is None:
        return problem
    longer = replace(schedule, updates=k * schedule.updates, warmup=k * schedule.warmup)
    return replace(problem, schedule=longer)


def lengthened(problem: Problem) -> Problem:
    """The length alone in micro-steps."""
    k, schedule = problem.accumulation_steps, problem.schedule
    if schedule is None:
        return problem
    return replace(problem, schedule=replace(schedule, updates=k * schedule.updates))


def rate_every_k(at: Place) -> Number:
    """The schedule advances once every K updates."""
    return rate_of(at.problem, at.update // at.problem.accumulation_steps)


MISTAKE = Mistake(
    title="The schedule takes K times as long as it should",
    explanation=(
        "The length of a schedule is often epochs times len(loader), which are micro-steps, while"
        " the schedule advances once an update: the warm-up takes K times as long, and the run"
        " ends before the learning rate has decayed. Or the count of updates is divided by K once"
        " more."
    ),
    signature=(
        "The learning rate of update u is that of u / K: too low in the warm-up, which lasts K"
        " times as long, too high after it, and never near zero. Nothing differs with K = 1 or at"
        " a constant rate."
    ),
    family="schedule",
    frequency=3,
    severity=3,
    stages=replace(STAGES, settings=stretched),
    forms=(
        replace(STAGES, settings=lengthened),
        replace(STAGES, learning_rate=rate_every_k),
    ),
    look_alikes={
        "sched-per-epoch": (
            "an epoch whose number of windows is not K: there the rate changes with the epoch, and"
            " here every K updates, or in every update"
        ),
        "schedule-ignored": "a schedule with a warm-up: there the first update moves at the peak",
    },
    evidence=(
        (
            "https://github.com/huggingface/accelerate/issues/225",
            "the schedule's length does not consider accumulation; agreed",
        ),
        (
            "https://github.com/huggingface/diffusers/issues/4387",
            "with lengths times K, the learning rate never reached zero",
        ),
        (
            "https://github.com/huggingface/diffusers/issues/2632",
            "no need to stretch the schedule by the accumulation steps",
        ),
        (
            "https://github.com/saforem2/ezpz/pull/123",
            "a review: the length counts micro-batches, the schedule updates",
        ),
        (
            "https://github.com/finegrain-ai/refiners/pull/210",
            "the warm-up's length when gradients are accumulated",
        ),
    ),
)
