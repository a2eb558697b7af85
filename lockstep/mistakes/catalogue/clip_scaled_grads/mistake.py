"""Gradients are clipped before the loss scale is taken out."""

from dataclasses import replace

from lockstep.mistakes import Mistake
from lockstep.oracle.loop import STAGES, Place, Theta, clip_to


def clip_scaled(gradient: Theta, at: Place) -> Theta:
    """Clip S times the gradient to max_norm, that is, the gradient to max_norm / S."""
    norm = None if at.max_norm is None else at.max_norm / at.number(at.scale)
    return clip_to(gradient, norm)


MISTAKE = Mistake(
    title="Gradients are clipped before the loss scale is taken out of them",
    explanation=(
        "Until it is unscaled, the accumulated gradient is S times what it should be, and almost"
        " always above max_norm: clipping scales it to max_norm, unscaling then divides by S. In"
        " effect max_norm is max_norm / S. In PyTorch GradScaler.step() unscales by itself, so"
        " that a loop without clipping needs no `unscale_`, and one to which clipping is added is"
        " wrong without it. SGD then hardly moves; Adam, whose update hardly depends on the"
        " gradient's size, hides most of the factor."
    ),
    signature=(
        "Without a loss scale nothing differs, and a window whose gradient is below max_norm / S is"
        " right. All others have a gradient of norm max_norm / S, in the right direction, which"
        " doubles or halves when S does the opposite."
    ),
    family="clipping",
    frequency=5,
    severity=4,
    stages=replace(STAGES, clip=clip_scaled),
    look_alikes={
        "unscale-per-microbatch": "the direction of the gradient: right here",
        "clip-per-microbatch": "without a loss scale: wrong there",
    },
    evidence=(
        (
            "https://github.com/Lightning-AI/pytorch-lightning/issues/9599",
            "clipping right after backward, unscale_ later: a very flat learning curve",
        ),
        (
            "https://github.com/Lightning-AI/pytorch-lightning/issues/9330",
            "unscaling makes the gradient much smaller than the clip norm",
        ),
        (
            "https://github.com/rwth-i6/returnn/issues/1590",
            "the effective value is reduced by a factor of 65k",
        ),
        (
            "https://github.com/victorchall/EveryDream2trainer/pull/175",
            "values like 1e5 had to be passed, rather than the common 1.0",
        ),
        ("https://github.com/pytorch/examples/issues/1196", "an official example without unscale_"),
        (
            "https://github.com/NVIDIA/apex/pull/1512",
            "results in extremely small gradients",
        ),
    ),
)
