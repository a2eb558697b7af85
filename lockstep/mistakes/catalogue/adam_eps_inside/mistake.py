"""Adam's eps is added inside the root."""

from dataclasses import replace
from functools import partial

from lockstep.mistakes import Mistake
from lockstep.oracle.loop import STAGES, Place, Theta, rule
from lockstep.oracle.rules import Constants, State, sqrt


def inside(
    theta: Theta,
    gradient: Theta,
    state: State,
    numbers: Constants,
    at: Place,
    corrected: bool = True,
) -> tuple[Theta, State]:
    """Divide by sqrt(v + eps), v corrected, or else the root."""
    plain, new = rule(theta, gradient, state, numbers, at)
    if at.problem.optimizer.name not in ("adam", "adamw"):
        return plain, new
    v, unbias = new.get("max_exp_avg_sq", new["exp_avg_sq"]), numbers["unbias"]
    if corrected:
        denominator = sqrt(v * (unbias * unbias) + numbers["eps"])
    else:
        denominator = sqrt(v + numbers["eps"]) * unbias
    return theta * numbers["decay"] - new["exp_avg"] / denominator * numbers["step"], new


MISTAKE = Mistake(
    title="Adam adds eps inside the root",
    explanation=(
        "Adam divides by sqrt(v + eps) instead of sqrt(v) + eps. RMSprop and Adagrad are often"
        " written so, and Adam is copied from there. optax offers it as eps_root, for those who"
        " differentiate through the update, and the eps of another library is passed as that. An"
        " eps of 1e-8 then works like one of 1e-4 outside. With the bias correction in the learning"
        " rate, eps is divided by 1 - beta2^t as well."
    ),
    signature=(
        "With v corrected and constant gradients g, an update is g / sqrt(g^2 + eps) of the"
        " learning rate where it should be g / (g + eps): for g = 1e-4 and eps = 1e-8 that is 0.707"
        " for 0.9999. Where v is 0 the denominator is sqrt(eps). It does not fade with the updates."
        " Where the bias correction is in the learning rate, eps counts as eps / (1 - beta2^t),"
        " 1000 times as much in update 1 with beta2 = 0.999, and falls to eps, not to 0. m, v and"
        " the rate are right. With eps = 0 nothing differs."
    ),
    family="optimizer",
    frequency=3,
    severity=2,
    stages=replace(STAGES, rule=inside),
    forms=(replace(STAGES, rule=partial(inside, corrected=False)),),
    look_alikes={
        "adam-eps-hat": "that one fades with the updates, as sqrt(1 - beta2^t) goes to 1",
        "eps-default": "one other eps explains all parameters; here small and large v need two",
        "rmsprop-variant": "the same in RMSprop: it shows without Adam",
    },
    evidence=(
        (
            "https://github.com/CyberZHG/keras-radam/issues/29",
            "epsilon is used inside the sqrt, but in Adam it is used outside",
        ),
        (
            "https://github.com/FluxML/Flux.jl/pull/448",
            "with the epsilon inside it is similar to a default of 1e-4; moved outside",
        ),
        (
            "https://github.com/juntang-zhuang/Adabelief-Optimizer/pull/12",
            "eps in the root must be squared to be similar to Adam's",
        ),
        (
            "https://github.com/google-deepmind/optax/issues/882",
            "which eps_root to differentiate through Adam with",
        ),
    ),
)
