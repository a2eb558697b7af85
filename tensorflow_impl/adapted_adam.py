"""What Keras's Adam, Adamax and Nadam cannot be set to."""

from typing import Any

import tensorflow as tf
from keras import optimizers as stock
from keras.saving import register_keras_serializable

from .neutral import Neutral


@register_keras_serializable("lockstep")
class Adam(Neutral, stock.Adam):
    """The stock one adds eps before it corrects the bias."""

    def update_step(self, g: Any, p: Any, rate: Any) -> None:
        """Scale by the root of a mean square."""
        settings, t = self.settings, self.count(p)
        beta1, beta2 = settings.betas
        m, v = self._momentums, self._velocities
        m, v = self.slots(p, m, v)
        m.assign(beta1 * m + (1 - beta1) * g)
        v.assign(beta2 * v + (1 - beta2) * g**2)
        if settings.amsgrad:
            (v_max,) = self.slots(p, self._velocity_hats)
            v = v_max.assign(tf.maximum(v_max, v))
        root = tf.sqrt(v / (1 - beta2**t)) + settings.eps
        self.assign_sub(p, rate / (1 - beta1**t) * m / root)


@register_keras_serializable("lockstep")
class Adamax(Neutral, stock.Adamax):
    """The stock one adds eps after the maximum."""

    def update_step(self, g: Any, p: Any, rate: Any) -> None:
        """Scale by the largest gradient of late."""
        settings = self.settings
        (beta1, beta2), eps = settings.betas, settings.eps
        m, norm = self.slots(p, self._m, self._u)
        m.assign(beta1 * m + (1 - beta1) * g)
        norm.assign(tf.maximum(beta2 * norm, tf.abs(g) + eps))
        bias = 1 - beta1 ** self.count(p)
        self.assign_sub(p, rate / bias * m / norm)


@register_keras_serializable("lockstep")
class Nadam(Neutral, stock.Nadam):
    """The stock one has a momentum decay of 1, in float32."""

    def build(self, variables: Any) -> None:
        """Keep the product of the momenta."""
        if self.built:
            return
        super().build(variables)
        self.products = [
            self.add_variable_from_reference(
                p, "product", "ones"
            )
            for p in variables
        ]

    def momentum(self, count: tf.Tensor) -> tf.Tensor:
        """Return an update's momentum, which grows."""
        fading = 0.96 ** (
            count * self.settings.momentum_decay
        )
        return self.settings.betas[0] * (1 - 0.5 * fading)

    def update_step(self, g: Any, p: Any, rate: Any) -> None:
        """Look ahead with the momentum of the next update."""
        settings, count = self.settings, self.count(p)
        beta1, beta2 = settings.betas
        m, v = self.slots(
            p, self._momentums, self._velocities
        )
        (product,) = self.slots(p, self.products)
        now, ahead = map(self.momentum, (count, count + 1))
        product.assign(product * now)
        m.assign(beta1 * m + (1 - beta1) * g)
        v.assign(beta2 * v + (1 - beta2) * g**2)
        root = tf.sqrt(v / (1 - beta2**count)) + settings.eps
        step = (1 - now) * g / (1 - product)
        step += ahead * m / (1 - product * ahead)
        self.assign_sub(p, rate * step / root)
