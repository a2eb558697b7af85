"""Settings in PyTorch's names, for Keras optimizers."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import tensorflow as tf
from keras.optimizers import Optimizer

# Keras makes float32 of these if they are plain floats.
EXACT = (
    "beta_1",
    "beta_2",
    "initial_accumulator_value",
    "weight_decay",
)


class Neutral(Optimizer):
    """Settings in PyTorch's names, and coupled decay.

    Keras's weight_decay always shrinks the parameters.
    """

    def __init__(
        self, settings: Any, *stock: Any, **kw: Any
    ) -> None:
        """Take neutral settings before the stock ones."""
        super().__init__(*stock, **kw)
        self.settings = settings

    def get_config(self) -> dict[str, Any]:
        """Return what makes the same optimizer again.

        What is excluded from decay is no part of it, as in
        every Keras optimizer: exclude it again.
        """
        given = {
            **vars(self.settings),
            "betas": list(self.settings.betas),
            "decoupled": self.settings.decoupled,
        }
        return super().get_config() | {"settings": given}

    @classmethod
    def from_config(
        cls, config: dict[str, Any], *custom: Any
    ) -> Any:
        """Make it again, with floats that Keras leaves be."""
        known = {
            name: np.float64(value)
            if name in EXACT
            else value
            for name, value in config.items()
            if value is not None
        }
        known["settings"] = SimpleNamespace(
            **config["settings"]
        )
        return super().from_config(known, *custom)

    def apply(
        self, grads: Any, trainable_variables: Any = None
    ) -> None:
        """Take one update in place; decay in the gradient."""
        variables = trainable_variables
        if variables is None:
            variables = self._trainable_variables
        if (
            self.settings.weight_decay
            and not self.settings.decoupled
        ):
            grads = [*map(self.decayed, grads, variables)]
        super().apply(grads, variables)

    def decayed(self, gradient: Any, variable: Any) -> Any:
        """Return the gradient and its share of decay."""
        if gradient is None or not self._use_weight_decay(
            variable
        ):
            return gradient
        return (
            gradient + self.settings.weight_decay * variable
        )

    def count(self, variable: Any) -> tf.Tensor:
        """Return the update's number, from 1, as a float."""
        return tf.cast(self.iterations + 1, variable.dtype)

    def slots(self, variable: Any, *slots: Any) -> list[Any]:
        """Return the variable's own part of each slot."""
        index = self._get_variable_index(variable)
        return [slot[index].value for slot in slots]
