"""Adam's bias correction stays at t = 1."""

from dataclasses import replace

from lockstep.mistakes import Mistake
from lockstep.oracle import rules
from lockstep.oracle.loop import STAGES, Number, Place, constants
from lockstep.oracle.rules import Constants


def always_the_first(rate: Number, at: Place) -> Constants:
    """Correct the bias of every update as that of the first."""
    numbers, s = constants(rate, at), at.problem.optimizer
    if s.name in ("adam", "adamw"):
        first = rules.constants(s, rate, 0, at.decays, at.dtype)
        numbers |= {name: first[name] for name in ("unbias", "step")}
    return numbers


MISTAKE = Mistake(
    title="Adam's bias correction stays at t = 1",
    explanation=(
        "The count that corrects the bias is read, but never increased. In PyTorch it is a local"
        " t = step + 1 that nobody stores. In JAX and TensorFlow it is a Python number that the"
        " rule increases: jax.jit and tf.function run that line once, while they trace, and compile"
        " the 1 into the program."
    ),
    signature=(
        "Update 1 is right, update 2 is the first to differ. After many updates they are"
        " sqrt(1 - beta2) / (1 - beta1) of what they should be: 0.316 for 0.9 and 0.999, and 2.236"
        " for 0.9 and 0.95. It never goes away. m and v are right; the step in the state is 0, or a"
        " count that is not used."
    ),
    family="optimizer",
    frequency=2,
    severity=4,
    stages=replace(STAGES, constants=always_the_first),
    look_alikes={
        "missing-bias-correction": "update 1 differs there, and later ones are right",
        "opt-state-dropped": "m and v start anew at every update there",
        "bias-step-off-by-one": "update 1 differs there",
        "schedule-ignored": "with SGD it shows there, and here it does not",
    },
    evidence=(
        (
            "https://github.com/allenai/OLMo-core/pull/317",
            "the step will not be incremented, an effective lr that is 2.2x higher",
        ),
        (
            "https://github.com/allenai/OLMo-core/pull/309",
            "bug fix for the step state in SkipStepAdamW",
        ),
        (
            "https://github.com/bayesflow-org/bayesflow/issues/223",
            "self.current_step += 1 is not tracked with JIT compilation enabled",
        ),
        (
            "https://github.com/jax-ml/jax/pull/20732",
            "JAX's page on state: jit a counter, and its side effect is lost",
        ),
        (
            "https://github.com/NVIDIA-NeMo/Emerging-Optimizers/pull/260",
            "state['step'] was initialized to 0 and never incremented",
        ),
    ),
)
