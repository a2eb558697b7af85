"""The schedule advances though the window was skipped."""

from dataclasses import replace

from lockstep.mistakes import Mistake
from lockstep.oracle.loop import STAGES, Number, Place, rate_of


def rate_by_window(at: Place) -> Number:
    """The learning rate of the next window, skipped ones counted."""
    return rate_of(at.problem, at.window)


MISTAKE = Mistake(
    title="The schedule advances though the window was skipped",
    explanation=(
        "GradScaler.step() leaves the optimizer alone when a gradient is not finite, and"
        " scheduler.step() in the next line knows nothing of it. The same happens to any schedule"
        " that a loop drives by its own count. A dynamic loss scale starts too high on purpose,"
        " so that the first windows of a run are skipped: its warm-up loses its first values."
    ),
    signature=(
        "All is right until a window is skipped. From then on, update u has the rate of u + s,"
        " with s the skipped windows so far; nothing else differs, and nothing at a constant"
        " rate."
    ),
    family="schedule",
    frequency=4,
    severity=2,
    stages=replace(STAGES, learning_rate=rate_by_window),
    look_alikes={
        "sched-off-by-one": "a run without a skipped window: this one is right there",
        "nonfinite-zeroed": (
            "momentum or weight decay: there the skipped window changes the parameters"
        ),
        "sched-per-microstep": "a run without a skipped window: this one is right there",
    },
    evidence=(
        (
            "https://github.com/Lightning-AI/pytorch-lightning/issues/18828",
            "the scheduler is stepped where the optimizer's step was skipped",
        ),
        (
            "https://github.com/pytorch/pytorch/issues/55585",
            "scaler.step() does not tell whether the optimizer's step ran",
        ),
        (
            "https://github.com/pytorch/pytorch/issues/67590",
            "asks for a way to know; users assume that it ran",
        ),
        (
            "https://github.com/huggingface/transformers/pull/11144",
            "steps the scheduler only where the scale did not change",
        ),
        (
            "https://github.com/NVIDIA-NeMo/Speech/pull/3293",
            "the scheduler's counter stays when an update is skipped",
        ),
    ),
)
