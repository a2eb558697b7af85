"""What Keras's optimizers cannot be set to, as subclasses."""

from typing import Any

import tensorflow as tf
from keras import optimizers as stock
from keras.saving import register_keras_serializable

from .neutral import Neutral


@register_keras_serializable("lockstep")
class SGD(Neutral, stock.SGD):
    """The stock one has the rate inside its buffer."""

    def update_step(self, g: Any, p: Any, rate: Any) -> None:
        """Descend; dampening spares the first update."""
        direction, settings = g, self.settings
        if settings.momentum:
            (buffer,) = self.slots(p, self.momentums)
            damped = (1 - settings.dampening) * g
            new = tf.where(self.iterations == 0, g, damped)
            buffer.assign(settings.momentum * buffer + new)
            direction = buffer
            if settings.nesterov:
                direction = g + settings.momentum * buffer
        self.assign_sub(p, rate * direction)


@register_keras_serializable("lockstep")
class RMSprop(Neutral, stock.RMSprop):
    """The stock one has eps in the root, rate in momentum."""

    def update_step(self, g: Any, p: Any, rate: Any) -> None:
        """Scale by the root of a mean square."""
        settings = self.settings
        alpha, momentum = settings.alpha, settings.momentum
        (v,) = self.slots(p, self._velocities)
        variance = v.assign(alpha * v + (1 - alpha) * g**2)
        if settings.centered:
            (mean,) = self.slots(p, self._average_gradients)
            mean.assign(alpha * mean + (1 - alpha) * g)
            variance = v - mean**2
        direction = g / (tf.sqrt(variance) + settings.eps)
        if momentum:
            (buffer,) = self.slots(p, self._momentums)
            buffer.assign(momentum * buffer + direction)
            direction = buffer
        self.assign_sub(p, rate * direction)


@register_keras_serializable("lockstep")
class Adagrad(Neutral, stock.Adagrad):
    """The stock one adds eps inside the root."""

    def update_step(self, g: Any, p: Any, rate: Any) -> None:
        """Scale by the root of the sum of squares."""
        (total,) = self.slots(p, self._accumulators)
        total.assign_add(g**2)
        rate /= (
            1 + (self.count(p) - 1) * self.settings.lr_decay
        )
        root = tf.sqrt(total) + self.settings.eps
        self.assign_sub(p, rate * g / root)


@register_keras_serializable("lockstep")
class Adadelta(Neutral, stock.Adadelta):
    """The stock one, with decay in the gradient."""


@register_keras_serializable("lockstep")
class Lion(Neutral, stock.Lion):
    """The stock one."""
