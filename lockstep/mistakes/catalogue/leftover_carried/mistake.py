"""Windows go on across epochs."""

from dataclasses import replace

from lockstep.mistakes import Mistake
from lockstep.oracle.loop import STAGES
from lockstep.problem import Problem


def carry(problem: Problem) -> Problem:
    """One long epoch; what does not fill a window at its end is not applied."""
    return replace(problem, partial_windows="carry")


def carry_to_the_end(problem: Problem) -> Problem:
    """One long epoch, whose partial window is applied."""
    weights = problem.example_weights
    return replace(
        problem,
        micro_batches=list(problem.micro_batches) * problem.epochs,
        example_weights=weights and list(weights) * problem.epochs,
        epochs=1,
        partial_windows="apply",
    )


MISTAKE = Mistake(
    title="Windows go on across epochs",
    explanation=(
        "Micro-batches are counted for the whole run, so a partial window is filled up with the"
        " next epoch's first micro-batches, and all later windows are shifted. optax.MultiSteps"
        " and Keras's gradient_accumulation_steps count so, since neither knows what an epoch is."
        " A port from a PyTorch loop, which counts within the epoch, then has other windows from"
        " the second epoch on. Nothing is lost but the rest at the end of the run."
    ),
    signature=(
        "The first epoch's whole windows are right; the first update to differ is the one in place"
        " of the first partial window, whose row of the coefficient matrix holds K columns, the"
        " last N mod K and the first ones of the next epoch, of 1 / K each. A run of E epochs has"
        " E N // K updates. Where N is a multiple of K nothing differs."
    ),
    family="windows",
    frequency=4,
    severity=2,
    stages=replace(STAGES, settings=carry),
    forms=(replace(STAGES, settings=carry_to_the_end),),
    look_alikes={
        "leftover-leaks": "the row that holds the left-over micro-batches: K + N mod K columns"
        " there, K here",
        "leftover-dropped": "the left-over columns of the coefficient matrix: empty there",
        "boundary-off-by-one": "the first update: right here, of one micro-batch there",
    },
    evidence=(
        (
            "https://github.com/google-deepmind/jax_privacy/pull/372",
            "in review: Keras carries the accumulation state across epochs",
        ),
        (
            "https://optax.readthedocs.io/en/latest/_collections/examples/gradient_accumulation.html",
            "MultiSteps applies gradients at regular repeating intervals",
        ),
        ("https://github.com/timoschick/pet/pull/25", "a fix that keeps the counter across epochs"),
        (
            "https://github.com/microsoft/Swin-Transformer/issues/185",
            "proposes to count epoch * num_steps + idx",
        ),
    ),
    kind="policy",
)
