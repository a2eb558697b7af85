"""The momentum buffer is an average of the gradients instead of their sum."""

from dataclasses import replace

from lockstep.mistakes import Mistake
from lockstep.oracle.loop import STAGES, Place, Theta, rule
from lockstep.oracle.rules import Constants, State
from lockstep.problem import Problem


def averaged(
    theta: Theta, gradient: Theta, state: State, numbers: Constants, at: Place
) -> tuple[Theta, State]:
    """Let the gradient enter SGD's buffer, and its look-ahead, with 1 - mu."""
    settings = at.problem.optimizer
    if settings.name == "sgd" and settings.momentum:
        gradient = (gradient + theta * numbers["l2"]) * (1 - numbers["momentum"])
        numbers = numbers | {"l2": 0}
    return rule(theta, gradient, state, numbers, at)


def corrected(
    theta: Theta, gradient: Theta, state: State, numbers: Constants, at: Place
) -> tuple[Theta, State]:
    """Divide that average by 1 - mu^t, as Adam does its own."""
    if at.problem.optimizer.name == "sgd" and at.problem.optimizer.momentum:
        unbiased = numbers["rate"] / (1 - numbers["momentum"] ** (at.update + 1))
        numbers = numbers | {"rate": unbiased}
    return averaged(theta, gradient, state, numbers, at)


def dampened(problem: Problem) -> Problem:
    """Dampen by the momentum, which spares the first update, and is refused with Nesterov's."""
    settings = problem.optimizer
    if settings.name != "sgd":
        return problem
    return replace(problem, optimizer=replace(settings, dampening=settings.momentum))


MISTAKE = Mistake(
    title="The momentum buffer is an average of the gradients, not their sum",
    explanation=(
        "The gradient enters the buffer with 1 - mu, as it enters Adam's first moment: optax.ema"
        " for optax.trace (it corrects the bias unless debias=False, so that update 1 is right),"
        " lerp_ for mul_ and add_, or dampening = momentum, which was the default of Torch 7."
        " Textbooks have both under the name of momentum. Learning rates do not carry over: with mu"
        " = 0.9 the average needs ten times the sum's."
    ),
    signature=(
        "From update 1 on, SGD with momentum does just what it does at 1 - mu times the learning"
        " rate, Nesterov's too; without momentum nothing differs. Where the bias is corrected,"
        " update 1 is right, and the others are an average: with mu = 0.9, rate 1 and gradients of"
        " 1, optax.ema goes to -1, -2, -3, and the sum to -1, -2.9, -5.61. With dampening ="
        " momentum in PyTorch, update 1 is right, since its dampening spares it, the gradients"
        " after it have the factor 1 - mu, and Nesterov's momentum is refused."
    ),
    family="optimizer",
    frequency=3,
    severity=3,
    stages=replace(STAGES, rule=averaged),
    forms=(replace(STAGES, rule=corrected), replace(STAGES, settings=dampened)),
    look_alikes={
        "dampening-first-update": "no dampening, without which that one is right",
        "momentum-lr-placement": "a constant learning rate, at which that one is right",
        "divide-twice": "plain SGD, which that one gets wrong",
    },
    evidence=(
        (
            "https://github.com/HIPS/autograd/issues/289",
            "autograd's sgd has (1 - mass) g, others have not; which one is correct?",
        ),
        (
            "https://github.com/ml-explore/mlx/pull/87",
            "our momentum is slightly non-standard in that we scale the gradient by 1 - momentum",
        ),
        (
            "https://github.com/KellerJordan/Muon/issues/52",
            "a running average instead of a decaying sum, by lerp_",
        ),
        (
            "https://github.com/torch/optim/issues/163",
            "why is the default of dampening the momentum?",
        ),
        (
            "https://github.com/PaddlePaddle/Paddle/issues/1002",
            "torch_momentum: set the learning rate ten times as high",
        ),
        (
            "https://github.com/keras-team/keras/issues/13971",
            "expected (1 - beta) dw: there are two ways to write momentum",
        ),
    ),
)
