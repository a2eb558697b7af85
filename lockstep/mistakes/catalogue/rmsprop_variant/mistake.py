"""RMSprop follows another library."""

from dataclasses import replace
from functools import partial

from lockstep.mistakes import Mistake
from lockstep.oracle.loop import STAGES, Place, Theta, rule
from lockstep.oracle.rules import Constants, State, sqrt
from lockstep.problem import Problem


def variant(
    theta: Theta,
    gradient: Theta,
    state: State,
    numbers: Constants,
    at: Place,
    eps_inside: bool = False,
    rate_inside: bool = False,
) -> tuple[Theta, State]:
    """Divide by sqrt(v + eps), or keep the learning rate inside the momentum buffer."""
    plain, new = rule(theta, gradient, state, numbers, at)
    if at.problem.optimizer.name != "rmsprop":
        return plain, new
    v, eps, rate = new["square_avg"], numbers["eps"], numbers["rate"]
    if "grad_avg" in new:
        v = v - new["grad_avg"] * new["grad_avg"]
    gradient = gradient + theta * numbers["l2"]
    direction = gradient / (sqrt(v + eps) if eps_inside else sqrt(v) + eps)
    if rate_inside:
        direction, rate = direction * rate, at.number(1)
    if "momentum_buffer" in new:
        direction = state["momentum_buffer"] * numbers["momentum"] + direction
        new["momentum_buffer"] = direction
    return theta - direction * rate, new


def other_decay(problem: Problem) -> Problem:
    """Average with 0.9, the default of Keras and optax, instead of the setting."""
    if problem.optimizer.name != "rmsprop":
        return problem
    return replace(problem, optimizer=replace(problem.optimizer, alpha=0.9))


MISTAKE = Mistake(
    title="RMSprop divides by sqrt(v + eps), or has the rate inside its momentum",
    explanation=(
        "PyTorch divides by sqrt(v) + eps and keeps the learning rate outside the momentum buffer."
        " Keras and TensorFlow divide by sqrt(v + eps) and have the rate inside; so does"
        " optax.rmsprop, where eps_in_sqrt is True unless it is set. By default their average"
        " decays with 0.9, PyTorch's with 0.99. Hyperparameters are copied from one to the other"
        " as if they meant the same."
    ),
    signature=(
        "With eps inside, update 1 is the first to differ, where sqrt(v) is not much larger than"
        " sqrt(eps). With the rate inside, the first update after a change of the rate, and only"
        " with momentum. With another decay, update 1 is the learning rate / sqrt(1 - decay): 10"
        " for 0.99, 3.16 for 0.9. Nothing differs for other optimizers."
    ),
    family="optimizer",
    frequency=4,
    severity=3,
    stages=replace(STAGES, rule=partial(variant, eps_inside=True)),
    forms=(
        replace(STAGES, rule=partial(variant, eps_inside=True, rate_inside=True)),
        replace(STAGES, rule=partial(variant, rate_inside=True)),
        replace(STAGES, settings=other_decay),
    ),
    look_alikes={
        "eps-default": "one other eps explains all parameters, and Adam differs too",
        "momentum-lr-placement": "SGD with momentum differs there",
        "adagrad-variant": "the same in Adagrad",
    },
    evidence=(
        (
            "https://github.com/pytorch/pytorch/issues/23796",
            "epsilon inside the sqrt in TensorFlow, outside in PyTorch",
        ),
        (
            "https://github.com/pytorch/pytorch/pull/26735",
            "a note in the documentation that the square root comes before adding epsilon",
        ),
        (
            "https://github.com/jax-ml/jax/pull/1427",
            "moved into the sqrt; a large difference in deep RL, with very large epsilon",
        ),
        (
            "https://github.com/google-deepmind/optax/issues/532",
            "is optax's rmsprop equivalent to torch's?",
        ),
        (
            "https://github.com/chainer/chainer/issues/4754",
            "it does matter when epsilon is large, as 1.0 for Inception",
        ),
        (
            "https://github.com/huggingface/pytorch-image-models/issues/225",
            "what is RMSpropTF?",
        ),
    ),
    kind="library",
)
