"""Settings are held in float32, though the parameters are float64."""

from dataclasses import fields, replace
from typing import Any

import numpy as np

from lockstep.mistakes import Mistake
from lockstep.oracle import rules
from lockstep.oracle.loop import STAGES, Number, Place, constants, rate_of
from lockstep.oracle.rules import Constants
from lockstep.problem import Problem


def low(setting: Any) -> Any:
    """A setting as float32 holds it; what is no float stays."""
    if isinstance(setting, tuple | list):
        return tuple(map(low, setting))
    return float(np.float32(setting)) if isinstance(setting, float) else setting


def low_rate(problem: Problem) -> Problem:
    """The learning rate, and all of a schedule's."""
    rates, schedule = problem.learning_rates, problem.schedule
    if schedule is not None:
        rates = [float(rate_of(problem, update)) for update in range(problem.updates)]
    rate = low(problem.optimizer.learning_rate)
    optimizer = replace(problem.optimizer, learning_rate=rate)
    return replace(problem, optimizer=optimizer, schedule=None, learning_rates=low(rates))


def low_peak(problem: Problem) -> Problem:
    """The optimizer's learning rate, and a schedule's peak with it; other rates are their own."""
    rate = low(problem.optimizer.learning_rate)
    return replace(problem, optimizer=replace(problem.optimizer, learning_rate=rate))


def low_betas(problem: Problem) -> Problem:
    """The betas of Adam and its relatives."""
    optimizer = replace(problem.optimizer, betas=low(problem.optimizer.betas))
    return replace(problem, optimizer=optimizer)


def low_momentum(problem: Problem) -> Problem:
    """The momentum of SGD and RMSprop."""
    optimizer = replace(problem.optimizer, momentum=low(problem.optimizer.momentum))
    return replace(problem, optimizer=optimizer)


def low_powers(rate: Number, at: Place) -> Constants:
    """Keras's Adam: only the powers of the bias corrections are of float32 betas."""
    settings = low_betas(at.problem).optimizer
    corrections = rules.constants(settings, rate, at.update, at.decays, at.dtype)
    return constants(rate, at) | {name: corrections[name] for name in ("unbias", "step")}


def all_low(problem: Problem) -> Problem:
    """Every number that the update is made with."""
    problem = low_rate(problem)
    settings = {
        each.name: low(getattr(problem.optimizer, each.name)) for each in fields(problem.optimizer)
    }
    optimizer = replace(problem.optimizer, **settings)
    return replace(problem, optimizer=optimizer, max_norm=low(problem.max_norm))


MISTAKE = Mistake(
    title="Settings are held in float32, though the parameters are float64",
    explanation=(
        "Keras keeps the learning rate in a float32 variable and computes its schedules in"
        " float32, and tf.cast makes float32 of a Python float before it makes float64 of it."
        " torch.tensor(0.1) and tf.constant(0.1) are float32, and so is all of JAX without"
        " jax_enable_x64. float64 parameters hide it: they are of full precision, and wrong from"
        " the eighth digit on."
    ),
    signature=(
        "Every update is off by the same relative error, up to 6e-8, from the first on: 1.5e-8"
        " for a learning rate of 0.05, and 0 for one that float32 holds, such as 1/16. Betas near"
        " 1 suffer more: 1 - 0.999 becomes smaller by a relative 1.3e-5. Forms: the learning"
        " rates alone, the optimizer's alone, the betas, the betas in Adam's bias corrections alone"
        " or the momentum alone as in Keras, all settings."
    ),
    family="precision",
    frequency=4,
    severity=1,
    stages=replace(STAGES, settings=low_rate),
    forms=(
        replace(STAGES, settings=low_peak),
        replace(STAGES, settings=low_betas),
        replace(STAGES, settings=low_momentum),
        replace(STAGES, constants=low_powers),
        replace(STAGES, settings=all_low),
    ),
    look_alikes={
        "low-precision-accumulator": (
            "a learning rate that float32 holds, say 1/16: this one is right there"
        ),
        "clip-epsilon": "no clipping: that one is right there",
    },
    evidence=(
        (
            "https://github.com/tensorflow/tensorflow/issues/35938",
            "tf.cast(0.2, tf.float64) is 0.20000000298023224",
        ),
        (
            "https://github.com/tensorflow/tensorflow/issues/57779",
            "the same again; the fix had been rolled back",
        ),
        (
            "https://github.com/tensorflow/tensorflow/issues/64548",
            "the same for NumPy's and Python's numbers in 2.15, and why",
        ),
        (
            "https://github.com/jax-ml/jax/issues/652",
            "precision is lost where float64 was asked for; x64 is off by default",
        ),
        (
            "https://github.com/tinygrad/tinygrad/pull/4297",
            "a learning rate in half precision cost a ResNet its target; float32 at least",
        ),
    ),
    kind="library",
)
