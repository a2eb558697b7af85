"""The optimizer's state, under neutral names.

The names are torch.optim's. A scalar that it keeps for each
parameter is given once for every number of the parameter.
"""

from typing import Any

import numpy as np
from keras.optimizers import Optimizer

from .data import Parameters

State = dict[str, Any]  # lists of arrays

ADAM = {
    "exp_avg": "_momentums",
    "exp_avg_sq": "_velocities",
    "max_exp_avg_sq": "_velocity_hats",
}
# What Keras calls them, by its optimizer's name.
SLOTS = {
    "sgd": {"momentum_buffer": "momentums"},
    "adam": ADAM,
    "adamax": {"exp_avg": "_m", "exp_inf": "_u"},
    "nadam": ADAM | {"mu_product": "products"},
    "rmsprop": {
        "square_avg": "_velocities",
        "grad_avg": "_average_gradients",
        "momentum_buffer": "_momentums",
    },
    "adagrad": {"sum": "_accumulators"},
    "adadelta": {
        "square_avg": "_accumulated_grads",
        "acc_delta": "_accumulated_delta_vars",
    },
    "lion": {"exp_avg": "_momentums"},
}


def optimizer_state(
    parameters: Parameters, optimizer: Optimizer
) -> State:
    """Return, for each name, W's array and b's.

    `step` counts updates; SGD does not count them.
    """
    name = type(optimizer).__name__.lower()
    state = {
        neutral: [slot.numpy() for slot in slots]
        for neutral, keras_name in SLOTS[name].items()
        if (slots := getattr(optimizer, keras_name, None))
    }
    if name != "sgd":
        step = float(optimizer.iterations.numpy())
        state["step"] = [
            np.full(p.shape, step) for p in parameters
        ]
    return state
