"""The learning rate goes into the momentum buffer."""

from dataclasses import replace

from lockstep.mistakes import Mistake
from lockstep.oracle.loop import STAGES, Place, Theta, rule
from lockstep.oracle.rules import Constants, State


def rate_inside(
    theta: Theta, gradient: Theta, state: State, numbers: Constants, at: Place
) -> tuple[Theta, State]:
    """Let SGD's buffer hold updates: v = mu v + lr g, and theta - v."""
    if at.problem.optimizer.name == "sgd":
        gradient = (gradient + theta * numbers["l2"]) * numbers["rate"]
        numbers = numbers | {"l2": 0, "rate": 1}
    return rule(theta, gradient, state, numbers, at)


MISTAKE = Mistake(
    title="The learning rate goes into the momentum buffer",
    explanation=(
        "v = mu v + lr g and theta -= v instead of v = mu v + g and theta -= lr v. Both are called"
        " SGD with momentum: the first is Sutskever's, Caffe's and Keras's, the second"
        " torch.optim's and optax's. They agree as long as the learning rate is constant. With a"
        " schedule, the buffer goes on at the learning rates of past updates."
    ),
    signature=(
        "The first update at a new learning rate is the first to differ, and only with momentum."
        " After lr, lr' with gradients g, g' the second update is mu lr g + lr' g' instead of"
        " lr' (mu g + g'). When the learning rate falls, updates are too large for some time; the"
        " buffer is lr times what it should be."
    ),
    family="optimizer",
    frequency=4,
    severity=3,
    stages=replace(STAGES, rule=rate_inside),
    look_alikes={
        "sched-off-by-one": "plain SGD with a schedule, which that one gets wrong",
        "momentum-ema": "a constant learning rate, at which this one is right and that one is not",
        "nesterov-ignored": (
            "a constant learning rate, at which this one is right and that one is not"
        ),
    },
    evidence=(
        (
            "https://github.com/pytorch/pytorch/issues/1099",
            "PyTorch's learning rate multiplies the buffer too, unlike Sutskever's; documented"
            " since",
        ),
        (
            "https://github.com/paiml/aprender/pull/2190",
            "the rate baked into the velocity: -0.200 instead of PyTorch's -0.119 after it changes",
        ),
        (
            "https://github.com/cjlin1/simpleNN/issues/7",
            "Keras's SGD and TensorFlow's MomentumOptimizer differ if the learning rate changes",
        ),
        (
            "https://github.com/PaddlePaddle/Paddle/pull/12231",
            "a reviewer expects the learning rate inside the velocity",
        ),
    ),
)
