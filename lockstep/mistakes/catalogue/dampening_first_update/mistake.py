"""Dampening acts on the first update too."""

from dataclasses import replace

from lockstep.mistakes import Mistake
from lockstep.oracle.loop import STAGES, Number, Place, constants
from lockstep.oracle.rules import Constants


def dampen_always(rate: Number, at: Place) -> Constants:
    """Let every gradient enter the momentum buffer with 1 - dampening, the first one too."""
    gain = 1 - at.number(at.problem.optimizer.dampening)
    return constants(rate, at) | {"gain": gain}


MISTAKE = Mistake(
    title="Dampening acts on the first update too",
    explanation=(
        "torch.optim.SGD starts its momentum buffer as a copy of the first gradient, undampened."
        " A buffer that starts at zero, as it does in most other libraries, lets the first"
        " gradient in with 1 - dampening. So do PyTorch's own, once somebody fills in zeros for"
        " the state that the first update would make, to load a checkpoint or to shard it."
    ),
    signature=(
        "Update 1 has the factor 1 - dampening. Later ones differ by"
        " lr mu^(u-1) dampening g_1, which fades with the momentum, and by what follows from it."
        " Nothing differs without dampening."
    ),
    family="optimizer",
    frequency=2,
    severity=2,
    stages=replace(STAGES, constants=dampen_always),
    look_alikes={
        "momentum-ema": "no dampening, without which that one is still wrong",
    },
    evidence=(
        (
            "https://github.com/pytorch/pytorch/pull/152833",
            "documents that dampening is skipped in the first update, too late to change it",
        ),
        (
            "https://github.com/ml-explore/mlx/pull/473",
            "MLX dampened the first gradient too, and changed to PyTorch's way",
        ),
        (
            "https://github.com/pytorch/pytorch/pull/91108",
            "why does the buffer not start at 0, as it usually does in the literature?",
        ),
    ),
)
