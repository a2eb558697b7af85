"""Weight decay acts on the bias too."""

from dataclasses import replace

from lockstep.mistakes import Mistake
from lockstep.oracle.loop import STAGES
from lockstep.problem import Problem


def everywhere(problem: Problem) -> Problem:
    """One group of parameters for all."""
    return replace(problem, decay_bias=True)


def where_decoupled(problem: Problem) -> Problem:
    """One group of parameters where decay is the optimizer's, after its rule."""
    return everywhere(problem) if problem.optimizer.name in ("adamw", "lion") else problem


MISTAKE = Mistake(
    title="Weight decay acts on the bias too",
    explanation=(
        "model.parameters() is one group with one weight decay, and so is optax's adamw without a"
        " mask and a Keras optimizer without exclude_from_weight_decay, which is called before"
        " build. Masks by name fail silently where the names are others in the port."
    ),
    signature=(
        "Only b differs, and W through it. Nothing differs where b is zero, or where the decay is"
        " meant to act on all parameters."
    ),
    family="decay",
    frequency=4,
    severity=2,
    stages=replace(STAGES, settings=everywhere),
    forms=(replace(STAGES, settings=where_decoupled),),
    look_alikes={
        "wd-ignored": "a problem with decay_bias: that one differs there, and this one does not",
    },
    evidence=(
        (
            "https://github.com/huggingface/transformers/issues/4360",
            "LayerNorm was not excluded in TensorFlow: the names did not match",
        ),
        (
            "https://github.com/dingo-actual/om/issues/12",
            "weight decay is applied to all parameters; fixed",
        ),
        (
            "https://github.com/Lightning-AI/lit-llama/issues/254",
            "weight decay on all layers, with nanoGPT's groups as the example",
        ),
        (
            "https://github.com/ServiceNow/Fast-LLM/issues/542",
            "norms and biases were no longer excluded after a refactoring",
        ),
    ),
)
