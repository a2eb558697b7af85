"""The optimizer's state, under neutral names.

The names are torch.optim's. A scalar that it keeps for each
parameter is given once for every number of the parameter.
"""

from typing import Any

import numpy as np
import optax

from .data import Parameters

State = dict[str, Any]  # lists of arrays

ADAM = {
    "exp_avg": "mu",
    "exp_avg_sq": "nu",
    "max_exp_avg_sq": "nu_max",
}
# What optax calls them, by the optimizer's name.
FIELDS = {
    "sgd": {"momentum_buffer": "trace"},
    "adam": ADAM,
    "adamw": ADAM,
    "adamax": {"exp_avg": "mu", "exp_inf": "nu"},
    "nadam": ADAM | {"mu_product": "mu_product"},
    "rmsprop": {
        "square_avg": "nu",
        "grad_avg": "mu",
        "momentum_buffer": "trace",
    },
    "adagrad": {"sum": "sum_of_squares"},
    "adadelta": {"square_avg": "e_g", "acc_delta": "e_x"},
    "lion": {"exp_avg": "mu"},
}


def optimizer_state(
    parameters: Parameters, state: optax.OptState, name: str
) -> State:
    """Return, for each name, W's array and b's.

    `step` counts updates; SGD does not count them.
    """
    found = {
        neutral: optax.tree.get(state, field)
        for neutral, field in FIELDS[name].items()
    }
    if name != "sgd":
        # The rate's schedule, the last of the chain, counts.
        found["step"] = float(state[-1].count)
    return {
        neutral: spread(value, parameters)
        for neutral, value in found.items()
        if value is not None
    }


def spread(value: Any, parameters: Parameters) -> list[Any]:
    """Return W's part and b's, which share a number."""
    if not isinstance(value, tuple):
        value = value, value
    return [
        np.broadcast_to(v, p.shape)
        for v, p in zip(value, parameters)
    ]
