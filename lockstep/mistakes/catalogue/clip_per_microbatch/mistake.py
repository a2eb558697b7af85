"""The running accumulator is clipped after every micro-batch."""

from dataclasses import replace

from lockstep.mistakes import Mistake
from lockstep.oracle.loop import STAGES, Place, Theta, clip_to


def then_clip(accumulator: Theta, gradient: Theta, at: Place) -> Theta:
    """Add, and clip the sum so far, at the loss scale that it has."""
    norm = None if at.max_norm is None else at.max_norm * at.number(at.scale)
    return clip_to(accumulator + gradient, norm)


def then_clip_scaled(accumulator: Theta, gradient: Theta, at: Place) -> Theta:
    """Add, and clip the sum so far, whose loss scale is not taken out."""
    return clip_to(accumulator + gradient, at.max_norm)


MISTAKE = Mistake(
    title="The accumulator is clipped after every micro-batch, not once a window",
    explanation=(
        "Clipping stands in the loop over micro-batches, after the backward, and so acts on what"
        " has accumulated so far. Where the sum exceeds max_norm early it is cut back, and later"
        " micro-batches, added in full, weigh too much. In PyTorch it takes only the indentation of"
        " `clip_grad_norm_`, which works on .grad, whatever is in it. With a loss scale, .grad is"
        " scaled until the window's end, and is clipped to max_norm / S."
    ),
    signature=(
        "Without a loss scale, nothing differs where a window's running sum stays below max_norm,"
        " nor in windows of one micro-batch. Elsewhere the direction changes: with shares (2, 0)"
        " and (0, 2) and max_norm 1 the gradient is (.447, .894), where (.707, .707) is right. A"
        " window whose running sum exceeds max_norm but whose total does not is clipped all the"
        " same."
    ),
    family="clipping",
    frequency=5,
    severity=3,
    stages=replace(STAGES, accumulate=then_clip),
    forms=(replace(STAGES, accumulate=then_clip_scaled),),
    look_alikes={
        "clip-each-microgradient": "a window whose shares are below max_norm and whose sum is not:"
        " clipped here, at its last micro-batch",
        "clip-per-tensor": "windows of one micro-batch: right here",
        "clip-scaled-grads": "without a loss scale: right there",
    },
    evidence=(
        (
            "https://github.com/huggingface/transformers/issues/986",
            "the first gradients get clipped several times, which gives more weight to the last",
        ),
        (
            "https://github.com/huggingface/transformers/pull/1580",
            "right before the optimizer, not after each micro-batch",
        ),
        (
            "https://github.com/swathikirans/GSM/issues/22",
            "clip(clip(grads1) + grads2), not clip(grads1 + grads2)",
        ),
        (
            "https://github.com/facebookresearch/lingua/pull/59",
            "clipping at each accumulation step is different from clipping just once",
        ),
        (
            "https://github.com/tenstorrent/tt-metal/issues/17568",
            "we currently clip grads after every backward pass",
        ),
        (
            "https://github.com/catalyst-team/catalyst/issues/1319",
            "clips after every backward, with the loss scale still in it",
        ),
    ),
)
