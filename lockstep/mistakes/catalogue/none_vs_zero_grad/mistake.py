"""A tensor whose gradient is zero is passed over, as if it had none."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from lockstep.mistakes import Mistake
from lockstep.oracle import loop
from lockstep.oracle.loop import STAGES, Place, Theta
from lockstep.oracle.rules import Constants, State

Rule = Callable[[Theta, Theta, State, Constants, Place], tuple[Theta, State]]
W, B = slice(None, -1), slice(-1, None)


def own_count(numbers: Constants, tensor: int, at: Place) -> Constants:
    """The numbers of a tensor that counts its own updates, as in torch.optim."""
    counts = at.kept.setdefault("counts", [0, 0])
    counts[tensor] += 1
    return at.stages.constants(at.rate, replace(at, update=counts[tensor] - 1))


def one_count(numbers: Constants, tensor: int, at: Place) -> Constants:
    """The numbers of the update, one count for all tensors, as in Keras and optax."""
    return numbers


def untouched(gradient: Theta) -> bool:
    """Whether a gradient is zero throughout, and not by rounding alone."""
    return not any(number or getattr(number, "error", 0) for number in gradient.flat)


def passing_over(count: Callable[[Constants, int, Place], Constants]) -> Rule:
    """The rule, for W alone and for b alone, where the gradient is not zero."""

    def rule(
        theta: Theta, gradient: Theta, state: State, numbers: Constants, at: Place
    ) -> tuple[Theta, State]:
        theta, state = theta.copy(), {name: array.copy() for name, array in state.items()}
        for tensor, rows in enumerate((W, B)):
            if untouched(gradient[rows]):
                continue
            own = count(numbers, tensor, at)
            own = own | {name: own[name][rows] for name in ("l2", "decay")}
            old = {name: array[rows] for name, array in state.items()}
            theta[rows], new = loop.rule(theta[rows], gradient[rows], old, own, at)
            for name, array in new.items():
                state[name][rows] = np.broadcast_to(array, state[name][rows].shape)
        return theta, state

    return rule


MISTAKE = Mistake(
    title="A tensor without a part in a window is skipped, not updated with zeros",
    explanation=(
        "A gradient of None and one of zero are not the same. torch.optim and Keras pass over a"
        " tensor whose gradient is None, and update one whose gradient is zero: momentum goes on,"
        " weight decay shrinks it, moments fade. Whether an unused tensor has None or zeros"
        " depends on the reset (set_to_none, the default since PyTorch 2.0) and on the"
        " framework (jax.grad gives zeros, a tape None). torch.optim also counts updates for each"
        " tensor; Keras and optax have one count, so that bias corrections differ from then on."
    ),
    signature=(
        "The first window in which a tensor has no part is the first to differ, in that tensor"
        " alone, and only with momentum, decay or moments. Under zeros it moves although its"
        " gradient is zero; skipped, it keeps its bits. At rate 0.1, after one gradient of 1, three"
        " updates with a gradient of zero move a weight by -0.244 under SGD with momentum 0.9 and"
        " by -0.161 under Adam; with None they move nothing. A tensor that is first used in update"
        " 4 of Adam moves by -0.1000 in torch and by -0.0581 in optax."
    ),
    family="optimizer",
    frequency=4,
    severity=3,
    stages=replace(STAGES, rule=passing_over(own_count)),
    forms=(replace(STAGES, rule=passing_over(one_count)),),
    look_alikes={
        "tape-none-dropped": (
            "a window in which only the last micro-batch leaves W out: right here, lost there"
        ),
        "frozen-with-stale-grad": "the tensor that has no part: it stands still here",
        "bias-step-off-by-one": "a run in which every window uses every tensor: right here",
        "zero-gradients-applied": (
            "a run in which every window uses every tensor: right here, wrong there"
        ),
    },
    evidence=(
        (
            "https://docs.pytorch.org/docs/stable/generated/torch.optim.Optimizer.zero_grad.html",
            "optimizers behave differently: 0 takes the step, None skips it altogether",
        ),
        (
            "https://github.com/pytorch/pytorch/issues/83769",
            "set_to_none can change what optimizers do",
        ),
        (
            "https://github.com/megvii-model/DetNAS/issues/3",
            "set to None on purpose: with zeros, momentum and decay would move them",
        ),
        (
            "https://github.com/facebookresearch/moco/issues/14",
            "SGD does not apply weight decay to parameters that do not have gradients",
        ),
        (
            "https://github.com/allenai/OLMo/pull/636",
            "an option to skip updates of the parts of parameters whose gradient is 0",
        ),
        (
            "https://github.com/KellerJordan/Muon/issues/54",
            "an optimizer that decays parameters even when their gradient is None",
        ),
    ),
    kind="policy",
)
