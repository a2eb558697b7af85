"""How far two libraries' own optimizers are apart, when a port carries over only their names.

`carried_over("jax", "pytorch")` trains with what a person has and with what a naive port makes of
it: the optimizer of the same name, the settings that were given, and defaults for the rest.
`distance` does so for any two, so that a page can show what does match.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np

from lockstep.frameworks import NAMES
from lockstep.optimizers import advice, measurement, stock
from lockstep.optimizers.measurement import DTYPE
from lockstep.optimizers.stock import MODULES, Make, NaiveCall, naive_call
from lockstep.optimizers.variants import VARIANTS, on_iris
from lockstep.problem import Array

UPDATES = 51  # whole epochs of three windows
# Below this the two differ in how they round.
ROUNDING = 1e-12


def distance(source: str, have: Make, target: str, write: Make, variant: str) -> float:
    """The largest distance between two trajectories, relative to the largest parameter."""
    return measurement.distance(
        trajectory(source, have, variant), trajectory(target, write, variant)
    )


def trajectory(framework: str, make: Make, variant: str) -> Sequence[Array]:
    """W above b after every update, at a learning rate that falls to zero."""
    if framework == "pytorch":
        import torch

        torch.set_num_threads(1)  # they cost more than they bring
    run = getattr(stock, framework)(on_iris(VARIANTS[variant], DTYPE, UPDATES), make)
    return [np.vstack([W, b]) for W, b in run]


@cache  # the pages of a framework show the same ones
def called(framework: str, call: str, variant: str) -> Sequence[Array]:
    """The trajectory of the optimizer that this text makes."""
    return trajectory(framework, maker(framework, call), variant)


def naive(framework: str, variant: str) -> NaiveCall | None:
    """What a naive port writes; None where the library has no such optimizer."""
    measured = measurement.shipped()[framework]
    return naive_call(framework, VARIANTS[variant], measured.signatures)


def maker(framework: str, call: str) -> Make:
    """The function of parameters and a learning rate that this text is the result of."""
    name = MODULES[framework].partition(".")[0]
    modules: dict[str, Any] = {"np": np, name: importlib.import_module(MODULES[framework])}
    modules[name] = importlib.import_module(name)
    made: Make = eval(f"lambda parameters, learning_rate: {call}", modules)
    return made


def words(found: float) -> str:
    """A distance; what rounding makes of it is not a number to compare."""
    return "rounding" if found < ROUNDING else f"{found:.0e}"


def short(framework: str, call: str) -> str:
    """The call without the module, and without what every call has."""
    for text in (f"{MODULES[framework]}.", "parameters, ", "learning_rate, ", "learning_rate"):
        call = call.replace(text, "", 1)
    return call


def carried_over(source: str, target: str) -> None:
    """Print how far off each of the target's own optimizers is, as a naive port calls it."""
    print(f"{NAMES[source]:30}{NAMES[target]:30}apart")
    for variant in advice.ROWS:
        have, write = naive(source, variant), naive(target, variant)
        if have and write and not have.left_out:
            runs = called(source, have.text, variant), called(target, write.text, variant)
            found = words(measurement.distance(*runs))
            lacks = f", has no {' and no '.join(write.left_out)}" * bool(write.left_out)
            shown = short(source, have.text), short(target, write.text)
            print(f"{shown[0]:30}{shown[1]:30}{found}{lacks}")
    print(f"in {UPDATES} updates on Iris, at a falling learning rate, in {DTYPE}")


def matching(source: str, target: str, pairs: Mapping[str, tuple[str | Make, str | Make]]) -> None:
    """Print how far two optimizers are apart: by variant, the one that you have, and the other."""
    for variant, (have, write) in pairs.items():
        for name in (have, write):
            print(name if isinstance(name, str) else name.__doc__)
        makes = [
            maker(framework, each) if isinstance(each, str) else each
            for framework, each in ((source, have), (target, write))
        ]
        found = distance(source, makes[0], target, makes[1], variant)
        print(f"    apart: {words(found)}")
