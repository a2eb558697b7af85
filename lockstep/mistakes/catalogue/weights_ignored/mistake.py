"""Example weights are not applied."""

from dataclasses import replace

from lockstep.mistakes import Mistake
from lockstep.oracle.loop import STAGES
from lockstep.problem import Problem


def without_weights(problem: Problem) -> Problem:
    """All examples count alike, padding included."""
    return replace(problem, example_weights=None)


def mask_only(problem: Problem) -> Problem:
    """Padding is left out, and what is left counts alike."""
    weights = problem.example_weights
    return replace(problem, example_weights=weights and [(w != 0) * 1.0 for w in weights])


MISTAKE = Mistake(
    title="Example weights, or the padding mask, are not applied to the loss",
    explanation=(
        "The mask goes into the model and not into the loss, or a wrapper that computes the loss"
        " does not take it: padding is trained on like everything else, and counted. In another"
        " form the mask is kept, and the weights of what is left are lost."
    ),
    signature=(
        "Without weights all is right. With them the direction changes, from the first window on"
        " that has unequal weights; a window whose weights are all equal is right. What stands in"
        " a padded example has an effect on the update, unless the mask is kept."
    ),
    family="scaling",
    frequency=3,
    severity=4,
    stages=replace(STAGES, settings=without_weights),
    forms=(replace(STAGES, settings=mask_only),),
    look_alikes={
        "weights-not-in-denominator": "other targets where the weight is 0: there nothing changes",
    },
    evidence=(
        (
            "https://github.com/TransformerLensOrg/TransformerLens/issues/1607",
            "padding contributes to both the loss sum and the denominator",
        ),
        (
            "https://github.com/arcee-ai/DAM/pull/16",
            "padded tokens are excluded from the losses, by the attention mask",
        ),
        (
            "https://github.com/TransformerLensOrg/TransformerLens/pull/699",
            "the loss will be wrong if there are any padding tokens",
        ),
        (
            "https://github.com/vlfeat/matconvnet/issues/523",
            "instance weights are checked for and not applied",
        ),
        (
            "https://github.com/huggingface/transformers/pull/19494",
            "a mean over devices that ignores the mask",
        ),
    ),
)
