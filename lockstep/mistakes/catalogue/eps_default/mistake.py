"""The eps that was set does not reach the optimizer."""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial

from lockstep.mistakes import Mistake
from lockstep.oracle.loop import STAGES
from lockstep.problem import Problem
from lockstep.problem.settings import OPTIMIZERS

TORCH = {name: each["eps"] for name, each in OPTIMIZERS.items() if "eps" in each}
OPTAX = TORCH | {"adagrad": 1e-7}
KERAS = dict.fromkeys(TORCH, 1e-7)


def with_default(defaults: Mapping[str, float], problem: Problem) -> Problem:
    """A library's default instead of the setting."""
    optimizer = problem.optimizer
    if optimizer.name not in defaults:
        return problem
    return replace(problem, optimizer=replace(optimizer, eps=defaults[optimizer.name]))


MISTAKE = Mistake(
    title="The optimizer runs with its library's default eps",
    explanation=(
        "eps is not passed on, and the library's default is used: 1e-7 in Keras, 1e-8 for Adam in"
        " PyTorch and optax. A configuration that has an eps does not show it. When code is ported"
        " without naming eps, the defaults differ too: for Adagrad 1e-10 in PyTorch and 1e-7 in"
        " Keras and optax, for Adadelta 1e-6 in PyTorch and optax and 1e-7 in Keras."
    ),
    signature=(
        "From update 1 on, and only where sqrt(v) is not much larger than one of the two eps. For"
        " Adam the first update is g / (g + eps) of the learning rate, which gives the eps in use."
        " SGD and Lion, which have none, are right. m, v and the rate are right."
    ),
    family="optimizer",
    frequency=4,
    severity=2,
    stages=replace(STAGES, settings=partial(with_default, KERAS)),
    forms=(
        replace(STAGES, settings=partial(with_default, TORCH)),
        replace(STAGES, settings=partial(with_default, OPTAX)),
    ),
    look_alikes={
        "adam-eps-hat": "the effective eps fades with the updates, and is right for RMSprop",
        "adam-eps-inside": "no one eps explains small and large v, and RMSprop is right",
        "no-divide": "for Adam a gradient K times too large is eps / K: SGD tells them apart",
        "divide-twice": "for Adam a gradient K times too small is K eps: SGD tells them apart",
    },
    evidence=(
        (
            "https://github.com/nvidia-cosmos/cosmos-rl/pull/511",
            "the epsilon attribute of the optimizer in the config is not used",
        ),
        (
            "https://github.com/open-edge-platform/physical-ai-studio/pull/1172",
            "the argument for AdamW's eps isn't utilized",
        ),
        (
            "https://github.com/ecmwf/WeatherGenerator/pull/1602",
            "eps is hardcoded despite being a parameter in the config",
        ),
        (
            "https://github.com/juntang-zhuang/Adabelief-Optimizer/pull/12",
            "confused why eps for Adam in TensorFlow is 1e-7, while 1e-8 for PyTorch",
        ),
    ),
)
