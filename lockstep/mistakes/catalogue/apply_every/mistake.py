"""The updates of the micro-batches are summed, instead of their gradients."""

from dataclasses import replace

from lockstep.mistakes import Mistake
from lockstep.oracle.loop import (
    STAGES,
    Number,
    Place,
    Theta,
    boundary,
    rate_of,
    take_update,
    to_number,
)
from lockstep.oracle.rules import State


def own_mean(at: Place) -> Number:
    """Take the mean over the micro-batch, which is a window of its own."""
    return at.number(1) / at.examples


def micro_step(at: Place) -> bool:
    """The optimizer runs in every micro-step."""
    return True


def hold(theta: Theta, gradient: Theta, state: State, at: Place) -> tuple[Theta, State]:
    """Take an update a micro-batch, and hold it back until there are K of them."""
    moved, state = take_update(theta, gradient, state, at)
    held = at.kept.get("held", 0) + (moved - theta)
    full = (at.update + 1) % at.problem.accumulation_steps == 0
    at.kept["held"] = 0 if full else held
    return theta + held if full else theta, state


def last_rate(at: Place) -> Number:
    """The learning rate of as many updates as the optimizer has taken; at the end, the last."""
    given = at.problem.learning_rates
    count = at.problem.updates if given is None else len(given)
    return rate_of(at.problem, min(at.update, count - 1))


def sum_updates(theta: Theta, gradient: Theta, state: State, at: Place) -> tuple[Theta, State]:
    """Take an update for the gradient of each of the window's micro-batches; apply their sum."""
    moved, stages = theta, at.stages
    for each in at.gradients:
        counted = replace(at, update=at.kept.get("inner updates", 0))
        clipped = stages.clip(stages.unscale(each, at), at)
        at.rate = to_number(at.number, stages.learning_rate(counted), at.problem)
        numbers = stages.constants(at.rate, counted)
        taken, state = stages.rule(theta, clipped, state, numbers, counted)
        moved = moved + (taken - theta)
        at.kept["inner updates"] = counted.update + 1
    return moved, state


CHAINED = replace(STAGES, weigh=own_mean, boundary=micro_step, take_update=hold, shows=boundary)

MISTAKE = Mistake(
    title="The micro-batches' updates are accumulated, instead of their gradients",
    explanation=(
        "optax.apply_every(k) ends a chain, and all that stands before it runs on every"
        " micro-batch's gradient: clipping, moments, decay, the schedule's count. It adds up K"
        " updates and lets their sum through, so that a loss that is a mean over its micro-batch"
        " makes updates K times as large. It also knows nothing of epochs: what a partial window"
        " leaves is held back and comes through in the middle of the next. The same by hand is a"
        " sum of what optimizer.update returns. optax.MultiSteps accumulates gradients."
    ),
    signature=(
        "With K = 1 nothing differs. Under plain SGD an update is the sum of K, so K times too"
        " large, unless the losses were divided by K: then nothing differs but clipping, which"
        " acts on each micro-batch, and the learning rate, whose index runs K times as fast."
        " Adam's every update is of about K lr in every coordinate, momentum and decay act K times"
        " an update. With K = 3 and gradients 1, 3, 2 the first update of adam(0.1) is -0.286, and"
        " MultiSteps makes it -0.1."
    ),
    family="optimizer",
    frequency=3,
    severity=4,
    stages=replace(STAGES, take_update=sum_updates),
    forms=(CHAINED, replace(CHAINED, learning_rate=last_rate)),
    look_alikes={
        "no-divide": "Adam, whose updates that one leaves at their size",
        "step-every-microbatch": "plain SGD with losses divided by the window: right here",
        "zero-gradients-applied": "plain SGD with clipping, which that one gets right",
        "clip-each-microgradient": "Adam without clipping, which that one gets right",
        "sched-per-microstep": "Adam at a constant learning rate, which that one gets right",
    },
    evidence=(
        (
            "https://github.com/jenkspt/gpt-jax/issues/2",
            "apply_every after clipping and SGD is not what MultiSteps does, nor one large batch",
        ),
        (
            "https://github.com/borisdayma/dalle-mini/pull/122",
            "used apply_every, which calls the optimizer in every micro-step; now a loop of its"
            " own",
        ),
        (
            "https://github.com/google-deepmind/optax/issues/472",
            "MultiSteps runs out of memory, apply_every in its place does not",
        ),
        (
            "https://github.com/deepspeedai/DeepSpeed/issues/8443",
            "Muon's update was made once a micro-batch: accumulation changed the optimizer",
        ),
    ),
    impossible={
        "pytorch": (
            "optimizer.step() changes the parameters at once and returns nothing that could be"
            " summed: a step for each micro-batch is step-every-microbatch."
        ),
        "tensorflow": (
            "apply_gradients changes the variables at once and returns nothing that could be"
            " summed: a call for each micro-batch is step-every-microbatch."
        ),
    },
)
