"""What a run counts: updates, and what they depend on."""

from typing import Any

from .schedule import learning_rates


class Progress:
    """The updates so far, and the dynamic loss scale.

    The scale moves as torch.amp.GradScaler's; its factor of
    2 rounds nothing. 1 stands for no scale.
    """

    def __init__(self, problem: Any) -> None:
        """Start at update 0 and at the initial scale."""
        self.problem, self.settings = (
            problem,
            problem.loss_scale,
        )
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
        s = self.settings
        if s and self.streak == s.growth_interval:
            self.scale, self.streak = self.scale * 2, 0

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
