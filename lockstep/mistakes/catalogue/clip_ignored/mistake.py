"""The gradient is not clipped."""

from dataclasses import replace

from lockstep.mistakes import Mistake
from lockstep.oracle.loop import STAGES
from lockstep.problem import Problem


def without_clipping(problem: Problem) -> Problem:
    """The same problem with no norm to clip to."""
    return replace(problem, max_norm=None)


MISTAKE = Mistake(
    title="The gradient is not clipped",
    explanation=(
        "The setting is read and clipping may even be called, but what reaches the optimizer is the"
        " gradient as it was: the clipped one is a new object that nobody uses, as with"
        " tf.clip_by_global_norm and in JAX, or clipping comes before the backward or after the"
        " update, where it acts on gradients that are about to be thrown away."
    ),
    signature=(
        "Windows whose gradient is below max_norm are right, and those above it differ by the"
        " factor norm / max_norm, with the direction unchanged. The first update to differ is the"
        " first that should have been clipped."
    ),
    family="clipping",
    frequency=4,
    severity=3,
    stages=replace(STAGES, settings=without_clipping),
    look_alikes={
        "clip-the-update": "plain SGD with learning rate times gradient norm above max_norm:"
        " clipped there",
        "clip-by-value": "a gradient of which a number exceeds max_norm: changed there",
        "clip-each-microgradient": "a window of one micro-batch above max_norm: clipped there",
    },
    evidence=(
        (
            "https://github.com/awslabs/graphstorm/issues/1366",
            "clipping is applied after the optimizer's update",
        ),
        (
            "https://github.com/jongwook/onsets-and-frames/issues/24",
            "clipping after backward and step; the author agrees",
        ),
        ("https://github.com/VGraphRNN/VGRNN/issues/4", "so it isn't doing anything"),
        (
            "https://github.com/simchowitzlabpublic/nano-world-model/pull/22",
            "the call came before backward, so with K = 1 clipping did nothing",
        ),
        (
            "https://github.com/NVIDIA/OpenSeq2Seq/pull/192",
            "a bug that effectively disabled gradient norm clipping",
        ),
        (
            "https://github.com/jcwleo/random-network-distillation-pytorch/issues/17",
            "the function does not modify the gradients",
        ),
    ),
)
