"""The optimizer's state is thrown away after every update."""

from dataclasses import replace

from lockstep.mistakes import Mistake
from lockstep.oracle.loop import STAGES, Number, Place, Theta, rate_of, take_update
from lockstep.oracle.rules import State


def begin_again(theta: Theta, gradient: Theta, state: State, at: Place) -> tuple[Theta, State]:
    """Take every update as the first one: no state, t = 1, the first learning rate."""
    at.kept["update of the run"] = at.update
    done = at.epoch * at.micro_steps + at.micro_step + 1
    at.kept["micro-steps before"] = done - len(at.gradients)
    first, fresh = replace(at, update=0), at.kept.setdefault("fresh", state)
    taken = take_update(theta, gradient, fresh, first)
    at.rate = first.rate
    return taken


def own_rate(at: Place) -> Number:
    """The learning rate of the update after all, from a schedule that somebody else counts."""
    return rate_of(at.problem, at.kept["update of the run"])


MISTAKE = Mistake(
    title="The optimizer's state is thrown away after every update",
    explanation=(
        "Every update starts from fresh state: no momentum, no moments, t = 1. In JAX it is one"
        " name: optimizer.update returns the new state, and a loop that does not hand it on, or"
        " calls init inside, trains without an error, at the schedule's first learning rate. In"
        " PyTorch and Keras it is an optimizer that a helper function makes anew at every call."
    ),
    signature=(
        "Update 1 is right and update 2 is the first to differ. Plain SGD at a constant learning"
        " rate does not show it. Momentum has no memory: every update is lr g, or lr (1 + mu) g"
        " with Nesterov's. Adam's is lr g / (|g| + eps), of size lr in every coordinate. A schedule"
        " that the optimizer counts stays at its first value: after a warm-up from 0, nothing ever"
        " moves."
    ),
    family="optimizer",
    frequency=3,
    severity=4,
    stages=replace(STAGES, take_update=begin_again),
    forms=(replace(STAGES, take_update=begin_again, learning_rate=own_rate),),
    look_alikes={
        "opt-state-per-epoch": "the second update, which that one gets right",
        "frozen-step-counter": "SGD with momentum, which that one gets right",
        "never-updates": "a constant learning rate, at which that one moves nothing either",
        "schedule-ignored": "momentum at a constant learning rate, which that one gets right",
    },
    evidence=(
        (
            "https://github.com/FhG-IISB/jNO/pull/115",
            "optax's state was re-initialised at every call: nothing raised, and every schedule"
            " never left its first updates",
        ),
        (
            "https://github.com/kozistr/pytorch_optimizer/pull/516",
            "the momentum buffer was zeroed before every update, and momentum had no effect",
        ),
        (
            "https://github.com/haydnv/tinychain/pull/51",
            "a new optimizer in every training cycle: how will t ever be incremented?",
        ),
        (
            "https://github.com/zju3dv/Vox-Fusion/issues/31",
            "a new Adam for each optimization loop discards its momentum; keeping it is better",
        ),
        (
            "https://github.com/raskr/rust-autograd/issues/16",
            "the optimizer's state was never written back",
        ),
    ),
)
