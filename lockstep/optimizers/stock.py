"""Each library's own optimizers: what they are called, what they take, a naive port to them.

A naive port is what a person writes who changes the library and nothing else: the optimizer of the
same name, the learning rate, and the settings that were given in PyTorch, under the library's own
names for them. The rest is left to the library's defaults, numbers are Python's, and what the
library has no setting for is left out. The learning rate moves as that library's users move it.
"""

from __future__ import annotations

import importlib
import inspect
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from lockstep.problem.settings import OPTIMIZERS, Optimizer

Signature = dict[str, Any]

# The module that people import, and the names that it has for the optimizers.
MODULES = {"pytorch": "torch.optim", "tensorflow": "keras.optimizers", "jax": "optax"}
CLASSES = {
    "pytorch": {
        "sgd": "SGD", "adam": "Adam", "adamw": "AdamW", "adamax": "Adamax", "nadam": "NAdam",
        "rmsprop": "RMSprop", "adagrad": "Adagrad", "adadelta": "Adadelta",
    },
    "tensorflow": {
        "sgd": "SGD", "adam": "Adam", "adamw": "AdamW", "adamax": "Adamax", "nadam": "Nadam",
        "rmsprop": "RMSprop", "adagrad": "Adagrad", "adadelta": "Adadelta", "lion": "Lion",
    },
    "jax": {name: name for name in OPTIMIZERS},
}  # fmt: skip
# A name of its own for a variant that is a setting elsewhere.
AMSGRAD = {"jax": "amsgrad"}
# What a library calls torch.optim's settings, where it calls them otherwise.
NAMES: dict[str, dict[str, tuple[str, ...]]] = {
    "pytorch": {"learning_rate": ("lr",)},
    "tensorflow": {"betas": ("beta_1", "beta_2"), "eps": ("epsilon",), "alpha": ("rho",)},
    "jax": {"betas": ("b1", "b2"), "alpha": ("decay",)},
}
REQUIRED = "required"


def stock_name(framework: str, settings: Optimizer) -> str | None:
    """The stock optimizer that a person would pick; None where the library has none."""
    if settings.amsgrad and framework in AMSGRAD:
        return AMSGRAD[framework]
    return CLASSES[framework].get(settings.name)


def own_names(framework: str, setting: str) -> tuple[str, ...]:
    """The library's names for one of torch.optim's settings: two for a pair that it takes apart."""
    return NAMES[framework].get(setting, (setting,))


def signatures(framework: str) -> dict[str, Signature]:
    """The parameters and defaults of each stock optimizer; imports the library.

    What has no default is REQUIRED, and what JSON has no word for is its repr. Left out are the
    parameters themselves, and what all of a library's optimizers have, a norm to clip to and the
    like, unless it is a setting here.
    """
    module = importlib.import_module(MODULES[framework])
    names = dict.fromkeys([*CLASSES[framework].values(), *filter(None, [AMSGRAD.get(framework)])])
    found = {
        name: {
            parameter.name: plain(parameter.default)
            for parameter in inspect.signature(getattr(module, name)).parameters.values()
            if parameter.kind is not parameter.VAR_KEYWORD and parameter.name != "params"
        }
        for name in names
    }
    settings = {
        own for setting in Optimizer.__annotations__ for own in own_names(framework, setting)
    }
    common = set.intersection(*map(set, found.values())) - (settings - {"name"})
    return {
        name: {own: default for own, default in each.items() if own not in common}
        for name, each in found.items()
    }


def plain(default: Any) -> Any:
    """A default as JSON keeps it."""
    if default is inspect.Parameter.empty:
        return REQUIRED
    try:
        return json.loads(json.dumps(default))
    except TypeError:
        return repr(default)


def default(framework: str, signature: Signature, setting: str) -> Any:
    """A stock optimizer's default for one of torch.optim's settings, in torch.optim's form.

    A pair is a tuple. None, which a library writes for a setting that is off, is 0 or False, but
    for a learning rate. Raises KeyError where there is no such setting.
    """
    names = own_names(framework, setting)
    found = tuple(signature[name] for name in names)
    value = found if len(found) > 1 else found[0]
    if isinstance(value, list):
        return tuple(value)
    return 0.0 if value is None and setting != "learning_rate" else value


@dataclass(frozen=True)
class NaiveCall:
    """A naive port's call, `learning_rate` and all, and the settings that it has to leave out."""

    text: str
    left_out: tuple[str, ...]


def naive_call(
    framework: str, settings: Optimizer, signatures: Mapping[str, Signature]
) -> NaiveCall | None:
    """What a naive port writes for these settings; None where the library has no such optimizer."""
    name = stock_name(framework, settings)
    if name is None:
        return None
    defaults, signature = OPTIMIZERS[settings.name], signatures[name]
    given = [
        setting
        for setting in defaults
        if setting != "learning_rate"
        and getattr(settings, setting) != defaults[setting]
        # amsgrad is in the name
        and not (setting == "amsgrad" and name == AMSGRAD.get(framework))
    ]
    arguments = ["parameters"] if framework == "pytorch" else []
    arguments.append("learning_rate")
    left_out = []
    for setting in given:
        names, value = own_names(framework, setting), getattr(settings, setting)
        if not set(names) <= set(signature):
            left_out.append(setting)
            continue
        values = value if len(names) > 1 else [value]
        arguments += [f"{own}={each!r}" for own, each in zip(names, values, strict=True)]
    return NaiveCall(f"{MODULES[framework]}.{name}({', '.join(arguments)})", tuple(left_out))


# Makes an optimizer of parameters and a learning rate, or a schedule where the library takes one.
Make = Callable[[Any, Any], Any]
# W and b after every update, as NumPy arrays
Run = Iterator[list[Any]]


def pytorch(problem: Any, make: Make) -> Run:
    """Train with a stock optimizer, whose groups are told the rate before every update."""
    from pytorch_impl.data import load_weighted, snapshot, windows_of_run
    from pytorch_impl.recipe import apply_gradients
    from pytorch_impl.schedule import learning_rates
    from pytorch_impl.window import weighted_gradient

    parameters, epoch = load_weighted(problem)
    rates = learning_rates(problem)
    optimizer = make(parameters, rates[0])
    for rate, window in zip(rates, windows_of_run(epoch, problem)):
        _, gradients = weighted_gradient(parameters, window, 1.0, None)
        apply_gradients(parameters, optimizer, gradients, rate)
        yield snapshot(parameters)


def tensorflow(problem: Any, make: Make) -> Run:
    """Train with a stock optimizer, whose `learning_rate` is assigned before every update."""
    from tensorflow_impl.data import load_weighted, snapshot, windows_of_run
    from tensorflow_impl.schedule import learning_rates
    from tensorflow_impl.window import weighted_gradient

    parameters, epoch = load_weighted(problem)
    rates = learning_rates(problem)
    optimizer = make(parameters, rates[0])
    for rate, window in zip(rates, windows_of_run(epoch, problem)):
        _, gradients = weighted_gradient(parameters, window, 1.0, None)
        optimizer.learning_rate = rate
        optimizer.apply_gradients(zip(gradients, parameters))
        yield snapshot(parameters)


def jax(problem: Any, make: Make) -> Run:
    """Train with a stock optimizer, whose schedule looks the rate up in a table."""
    from jax_impl.precision import in_float64

    return in_float64(_scheduled)(problem, make)


def _scheduled(problem: Any, make: Make) -> Run:
    import jax.numpy as jnp

    from jax_impl.accumulation import apply_gradients
    from jax_impl.data import load_weighted, snapshot, windows_of_run
    from jax_impl.schedule import learning_rates
    from jax_impl.window import weighted_gradient

    parameters, epoch = load_weighted(problem)
    rates = jnp.array(learning_rates(problem), problem.dtype)
    optimizer = make(parameters, rates.__getitem__)
    state = optimizer.init(parameters)
    for window in windows_of_run(epoch, problem):
        _, gradients = weighted_gradient(parameters, window, 1.0, None)
        parameters, state = apply_gradients(parameters, state, optimizer, gradients)
        yield snapshot(parameters)


PORT = """
import {module}
from lockstep.optimizers.stock import {framework} as run

def train(problem):
    return run(problem, lambda parameters, learning_rate: {call})
"""
SIGNATURES = """
import json
from pathlib import Path
from lockstep.optimizers.stock import signatures

def train(problem):
    # A worker's answers are arrays; these travel in a file beside this one.
    Path(__file__).with_suffix(".json").write_text(json.dumps(signatures({framework!r})))
    yield problem.W, problem.b
"""
