"""Adam's eps is added before the bias correction."""

from dataclasses import replace

from lockstep.mistakes import Mistake
from lockstep.oracle.loop import STAGES, Number, Place, constants
from lockstep.oracle.rules import Constants


def eps_hat(rate: Number, at: Place) -> Constants:
    """What corrects sqrt(v) multiplies eps as well: the rate has the whole correction."""
    numbers = constants(rate, at)
    if at.problem.optimizer.name in ("adam", "adamw"):
        numbers["eps"] = numbers["eps"] * numbers["unbias"]
    return numbers


MISTAKE = Mistake(
    title="Adam adds eps to sqrt(v) before it corrects the bias",
    explanation=(
        "With the whole correction in the learning rate, lr sqrt(1 - beta2^t) / (1 - beta1^t), eps"
        " is divided by sqrt(1 - beta2^t) like sqrt(v). It is the faster form of the paper, whose"
        " eps is called epsilon-hat there: Keras and TensorFlow have it, PyTorch had it until 2019,"
        " and hand-written loops copy it. No constant eps makes it PyTorch's or optax's Adam."
    ),
    signature=(
        "The effective eps is eps / sqrt(1 - beta2^t): for beta2 = 0.999 31.6 times as large at"
        " update 1, 3.2 times at 100, 1.3 times at 1000. Every update is too small, the first the"
        " most, and only where sqrt(v) is not much larger than eps. m, v and the rate are right."
        " With eps = 0 nothing differs."
    ),
    family="optimizer",
    frequency=4,
    severity=2,
    stages=replace(STAGES, constants=eps_hat),
    look_alikes={
        "eps-default": "another eps, the same at every update: the ratio of two updates shows it",
        "adam-eps-inside": "the effective eps depends on v, and does not fade with the updates",
        "missing-bias-correction": "with eps = 0, eps-hat changes nothing",
    },
    evidence=(
        (
            "https://github.com/tensorflow/tensorflow/issues/35102",
            "TensorFlow's Adam differs from the paper, it applies the beta2 correction to epsilon",
        ),
        (
            "https://github.com/karpathy/nanochat/issues/304",
            "is epsilon incorrectly scaled? fixed, in a hand-written AdamW",
        ),
        (
            "https://github.com/pytorch/pytorch/pull/22628",
            "PyTorch's own epsilon was scaled by the square root of bias_correction2",
        ),
        (
            "https://github.com/google-deepmind/optax/issues/571",
            "the formulas of optax's Adam and TensorFlow's, side by side",
        ),
        (
            "https://github.com/HorizonRobotics/alf/pull/466",
            "the difference can not be eliminated by matching hyper-parameters (e.g. eps)",
        ),
        (
            "https://tensorflow.org/versions/r2.8/api_docs/python/tf/keras/optimizers/Adam",
            "this epsilon is epsilon hat, not the epsilon in Algorithm 1",
        ),
    ),
    kind="library",
)
