"""What a run counts: updates, and what they depend on."""

from .problem import Problem
from .schedule import learning_rates


class Progress:
    """The updates so far, and the dynamic loss scale.

    The scale moves as torch.amp.GradScaler's and Keras's
    LossScaleOptimizer's; optax has none. Its factor of 2
    rounds nothing, up to float32's largest power of two.
    """

    def __init__(self, problem: Problem) -> None:
        """Start at update 0 and at the initial scale."""
        self.problem = problem
        self.settings = problem.loss_scale
        self.rates = learning_rates(problem)
        self.updates, self.streak, self.scale = 0, 0, 1.0
        if self.settings:
            self.scale = self.settings.initial

    @property
    def rate(self) -> float:
        """The learning rate of the next update."""
        return self.rates[self.updates]

    def advance(self) -> None:
        """Count an update; a streak doubles the scale."""
        self.updates += 1
        self.streak += 1
        settings = self.settings
        if (
            settings
            and self.streak == settings.growth_interval
        ):
            self.scale = min(self.scale * 2, 2.0**127)
            self.streak = 0

    def skip(self) -> None:
        """Halve the scale, after a window not finite."""
        if self.settings:
            self.scale, self.streak = self.scale / 2, 0

    def counts(self) -> dict[str, float]:
        """Return both, by their names."""
        return {
            "updates": self.updates,
            "loss_scale": self.scale,
        }
