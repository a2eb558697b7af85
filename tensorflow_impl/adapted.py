"""What Keras's optimizers cannot be set to, as subclasses."""

from typing import Any

import tensorflow as tf
from keras import optimizers as stock

from .neutral import Neutral


class SGD(Neutral, stock.SGD):
    """The stock one has the rate inside its buffer."""

    def update_step(self, g: Any, p: Any, rate: Any) -> None:
        """Descend; dampening spares the first update."""
        direction, s = g, self.s
        if s.momentum:
            (buffer,) = self.slots(p, self.momentums)
            damped = (1 - s.dampening) * g
            new = tf.where(self.iterations == 0, g, damped)
            buffer.assign(s.momentum * buffer + new)
            direction = buffer
            if s.nesterov:
                direction = g + s.momentum * buffer
        self.assign_sub(p, rate * direction)


class RMSprop(Neutral, stock.RMSprop):
    """The stock one has eps in the root, rate in momentum."""

    def update_step(self, g: Any, p: Any, rate: Any) -> None:
        """Scale by the root of a mean square."""
        s, alpha = self.s, self.s.alpha
        (v,) = self.slots(p, self._velocities)
        variance = v.assign(alpha * v + (1 - alpha) * g**2)
        if s.centered:
            (mean,) = self.slots(p, self._average_gradients)
            mean.assign(alpha * mean + (1 - alpha) * g)
            variance = v - mean**2
        direction = g / (tf.sqrt(variance) + s.eps)
        if s.momentum:
            (buffer,) = self.slots(p, self._momentums)
            buffer.assign(s.momentum * buffer + direction)
            direction = buffer
        self.assign_sub(p, rate * direction)


class Adagrad(Neutral, stock.Adagrad):
    """The stock one adds eps inside the root."""

    def update_step(self, g: Any, p: Any, rate: Any) -> None:
        """Scale by the root of the sum of squares."""
        (total,) = self.slots(p, self._accumulators)
        total.assign_add(g**2)
        rate /= 1 + (self.count(p) - 1) * self.s.lr_decay
        root = tf.sqrt(total) + self.s.eps
        self.assign_sub(p, rate * g / root)


class Adadelta(Neutral, stock.Adadelta):
    """The stock one, with decay in the gradient."""


class Lion(Neutral, stock.Lion):
    """The stock one."""
