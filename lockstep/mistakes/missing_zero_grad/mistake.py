"""Gradients are never cleared."""

from dataclasses import replace

from lockstep.mistakes import Mistake
from lockstep.reference import STAGES, Theta


def keep(accumulator: Theta) -> Theta:
    """No reset: the accumulator goes on into the next window."""
    return accumulator


MISTAKE = Mistake(
    title="The accumulator is never reset",
    explanation=(
        "Every update uses the sum of all gradients since the start. Update 1 is right and"
        " update 2 is the first to differ. Under SGD it is exactly momentum 1."
    ),
    stages=replace(STAGES, reset=keep),
)
