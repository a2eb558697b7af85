"""The micro-batches' means are added up, and not divided."""

from dataclasses import replace

from lockstep.mistakes import Mistake
from lockstep.oracle.loop import STAGES, Number, Place


def own_mean(at: Place) -> Number:
    """A micro-batch's own mean, as if it were all of its window."""
    return 1 / at.examples


MISTAKE = Mistake(
    title="The sum of the micro-batches' means is not divided by K",
    explanation=(
        "A loss function returns the mean over its micro-batch, and gradients add up, so that K"
        " of them make K times a mean. Nobody divides: not backward(), not a sum of your own, and"
        " not optax.MultiSteps with use_grad_mean=False. Under Adam one hardly notices."
    ),
    signature=(
        "Update 1 is wrong already. The coefficient matrix has blocks of 1 instead of 1/K. With"
        " equal micro-batches every gradient is K times too large, for SGD a learning rate K times"
        " too large. Adam's first moment is K times too large and its second K² times, and Adam"
        " moves as if eps were eps / K. Clipping sees K times the norm."
    ),
    family="scaling",
    frequency=5,
    severity=3,
    stages=replace(STAGES, weigh=own_mean),
    look_alikes={
        "rate-times-k": "the gradient that the port yields: there it is right",
        "vector-loss-summed": "the size of the micro-batches: there the factor grows with it",
        "missing-zero-grad": "update 1: there it is right",
        "summed-loss-backward": "a window's last micro-batch: there it counts once, not K times",
    },
    evidence=(
        (
            "https://github.com/karpathy/nanoGPT/issues/168",
            "Adam does not mind, but the clip value is silently lower by the factor",
        ),
        (
            "https://github.com/agokrani/distillKitPlus/issues/5",
            "the loss jumps from 6 to 26 when K goes from 8 to 32",
        ),
        (
            "https://github.com/ApolloResearch/e2e_sae/pull/70",
            "the division had been removed by mistake; the losses include means",
        ),
        (
            "https://github.com/Lightning-AI/pytorch-lightning/issues/87",
            "only the logged loss was averaged, not the one of backward()",
        ),
        (
            "https://github.com/openai/guided-diffusion/issues/111",
            "the gradient is the sum over the micro-batches: is this a bug?",
        ),
    ),
)
