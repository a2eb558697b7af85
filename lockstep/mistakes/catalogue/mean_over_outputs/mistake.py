"""The mean is taken over all elements instead of over the examples."""

from dataclasses import replace

from lockstep.mistakes import Mistake
from lockstep.oracle.loop import STAGES, Number, Place


def elements(weights: Number, rows: int, at: Place) -> Number:
    """Every output of an example counts."""
    return weights * len(at.problem.b)


MISTAKE = Mistake(
    title="The squared error is averaged over the outputs too, not only the examples",
    explanation=(
        "torch.nn.MSELoss divides by the number of elements, examples times outputs, and Keras's"
        " mean squared error is the mean over the last axis. A loss that sums over the outputs and"
        " averages over the examples is larger by their number. It matters where a second term of"
        " the loss, a learning rate, or a limit to clip to was chosen for the other."
    ),
    signature=(
        "Every gradient is too small by the number of outputs, from update 1 on and with K = 1 too,"
        " the reported loss as well. With two outputs the coefficient matrix has blocks of 1/(2K)."
        " With one output all is right."
    ),
    family="scaling",
    frequency=4,
    severity=2,
    stages=replace(STAGES, count=elements),
    look_alikes={
        "half-loss": "another number of outputs than two: there it is half as well",
        "divide-twice": "K = 1: there all is right",
        "momentum-ema": "no momentum: there all is right",
    },
    evidence=(
        (
            "https://pytorch.org/docs/stable/generated/torch.nn.MSELoss.html",
            "the mean still operates over all the elements",
        ),
        (
            "https://www.tensorflow.org/api_docs/python/tf/keras/losses/MSE",
            "loss = mean(square(y_true - y_pred), axis=-1)",
        ),
        (
            "https://github.com/zdebruine/MMVAE/pull/19",
            "sum over the features and divide by the batch size instead",
        ),
        (
            "https://github.com/orybkin/sigma-vae-pytorch/pull/12",
            "blurry images until the average over the pixels is turned off",
        ),
        (
            "https://github.com/orybkin/sigma-vae-tensorflow/issues/2",
            "reduce_mean came with the first implementation; this is wrong",
        ),
    ),
)
