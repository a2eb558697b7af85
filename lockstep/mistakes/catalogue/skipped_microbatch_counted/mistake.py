"""A micro-batch that is not finite is left out, and still counted."""

from dataclasses import replace

from lockstep.mistakes import Mistake
from lockstep.oracle.loop import STAGES, Place, Theta, finite


def finite_only(accumulator: Theta, gradient: Theta, at: Place) -> Theta:
    """Leave out a share that is not finite; the others keep their weights."""
    return accumulator + gradient if finite(gradient, at) else accumulator


MISTAKE = Mistake(
    title="A micro-batch that is not finite is left out, but the window still counts it",
    explanation=(
        "A `continue` on a loss that is NaN or infinite keeps the bad micro-batch out of the"
        " accumulator, but the divisor was fixed before, by K or by all examples of the window."
        " The update that is taken is too small by the share of what was left out. The agreed"
        " update skips the whole window, and with it a rate of the schedule."
    ),
    signature=(
        "Without a micro-batch that is not finite nothing differs. With one, its window is an"
        " update where none is due, so that all later ones have another learning rate and another"
        " update number. With s of K equal micro-batches left out, the gradient is (K - s) / K of"
        " the mean of the others, and the loss scale is not halved."
    ),
    family="windows",
    frequency=3,
    severity=3,
    stages=replace(STAGES, accumulate=finite_only),
    look_alikes={
        "nonfinite-zeroed": "plain SGD: the window's finite micro-batches move the parameters here;"
        " where the whole gradient is zeroed nothing moves there",
        "skipped-microbatch-replaced": "which micro-batches the update has: one more there",
        "sched-with-skipped-window": "the parameters after the window: unchanged there",
    },
    evidence=(
        (
            "https://github.com/mflux-community/mflux/pull/447",
            "in review: the window updates with only two gradients, divided by four",
        ),
        (
            "https://github.com/PrimeIntellect-ai/prime-rl/pull/1961",
            "in review: tokens of NaN micro-steps are in the denominator",
        ),
        (
            "https://github.com/automl/TFM-Playground/pull/20",
            "skipped batches were still implicitly counted",
        ),
        ("https://github.com/NVIDIA-NeMo/Automodel/pull/2468", "skipped micro-batches, counted"),
        (
            "https://github.com/MeryylleA/lunariscodex/pull/71",
            "in review: the window might be based on fewer gradients",
        ),
    ),
)
