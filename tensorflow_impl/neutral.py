"""Settings in PyTorch's names, for Keras optimizers."""

from typing import Any

import tensorflow as tf
from keras.optimizers import Optimizer
from keras.optimizers.schedules import LearningRateSchedule


class Table(LearningRateSchedule):
    """One rate an update; Keras's schedules are float32."""

    def __init__(
        self, rates: list[float], dtype: str
    ) -> None:
        """Hold the rates in the parameters' dtype."""
        self.rates = tf.constant(rates, dtype)

    def get_config(self) -> dict[str, Any]:
        """Return what makes the same table again."""
        rates = self.rates.numpy().tolist()
        return {
            "rates": rates,
            "dtype": self.rates.dtype.name,
        }

    def __call__(self, step: Any) -> tf.Tensor:
        """Return an update's rate; at the end, the last."""
        last = len(self.rates) - 1
        return self.rates[
            tf.minimum(tf.cast(step, "int32"), last)
        ]


class Neutral(Optimizer):
    """Settings in PyTorch's names, and coupled decay.

    Keras's weight_decay always shrinks the parameters.
    """

    def __init__(
        self, s: Any, *stock: Any, **kw: Any
    ) -> None:
        """Take neutral settings before the stock ones."""
        super().__init__(*stock, **kw)
        self.s = s

    def apply(
        self, grads: Any, trainable_variables: Any = None
    ) -> None:
        """Take one update in place; decay in the gradient."""
        variables = trainable_variables
        if variables is None:
            variables = self._trainable_variables
        if self.s.weight_decay and not self.s.decoupled:
            grads = [*map(self.decayed, grads, variables)]
        super().apply(grads, variables)

    def decayed(self, gradient: Any, variable: Any) -> Any:
        """Return the gradient and its share of decay."""
        if gradient is None or not self._use_weight_decay(
            variable
        ):
            return gradient
        return gradient + self.s.weight_decay * variable

    def count(self, variable: Any) -> tf.Tensor:
        """Return the update's number, from 1, as a float."""
        return tf.cast(self.iterations + 1, variable.dtype)

    def slots(self, variable: Any, *slots: Any) -> list[Any]:
        """Return the variable's own part of each slot."""
        index = self._get_variable_index(variable)
        return [slot[index].value for slot in slots]
