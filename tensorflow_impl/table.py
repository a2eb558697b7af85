"""Learning rates in a table, that a model saves too."""

from typing import Any

import tensorflow as tf
from keras.optimizers.schedules import LearningRateSchedule
from keras.saving import register_keras_serializable


@register_keras_serializable("lockstep")
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
        update = tf.minimum(tf.cast(step, "int32"), last)
        # XLA would compile self.rates[...] for each update.
        return tf.gather(self.rates, update)
