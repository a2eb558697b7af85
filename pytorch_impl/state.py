"""The optimizer's state, under neutral names.

The names are torch.optim's. A scalar that it keeps for each
parameter is given once for every number of the parameter.
"""

from typing import Any

import numpy as np
from torch.optim import Optimizer

from .data import Parameters

State = dict[str, Any]  # lists of arrays


def optimizer_state(
    parameters: Parameters, optimizer: Optimizer
) -> State:
    """Return, for each name, W's array and b's.

    `step` counts updates; SGD does not count them.
    """
    states = [optimizer.state[p] for p in parameters]
    return {
        name: [
            np.full(p.shape, state[name])
            for p, state in zip(parameters, states)
        ]
        for name in states[0]
        if states[0][name] is not None
    }
