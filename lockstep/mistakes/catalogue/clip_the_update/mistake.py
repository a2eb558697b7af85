"""The optimizer's update is clipped instead of the gradient."""

from dataclasses import replace

from lockstep.mistakes import Mistake
from lockstep.oracle.loop import STAGES, Place, Theta, clip_to, take_update
from lockstep.oracle.rules import State


def not_at_all(gradient: Theta, at: Place) -> Theta:
    """The gradient is not clipped."""
    return gradient


def clip_change(theta: Theta, gradient: Theta, state: State, at: Place) -> tuple[Theta, State]:
    """Take the update, and clip what it changes."""
    new, state = take_update(theta, gradient, state, at)
    if at.max_norm is None:
        return new, state
    return theta + clip_to(new - theta, at.max_norm), state


def clip_direction(theta: Theta, gradient: Theta, state: State, at: Place) -> tuple[Theta, State]:
    """Take the update, and clip what the learning rate multiplies."""
    new, state = take_update(theta, gradient, state, at)
    if at.max_norm is None or not at.rate:
        return new, state
    return theta + clip_to((new - theta) / at.rate, at.max_norm) * at.rate, state


MISTAKE = Mistake(
    title="The optimizer's update is clipped instead of the gradient",
    explanation=(
        "Clipping follows the optimizer: in an optax chain, clip_by_global_norm stands last and not"
        " first, and a chain's parts all have the same type, so nothing warns. The moments then"
        " hold gradients that were never clipped, and what is cut is the change of the parameters,"
        " learning rate and decay included. An update is seldom as large as a max_norm that was"
        " chosen for gradients, so most often this is no clipping at all."
    ),
    signature=(
        "The change of the parameters never has a norm above max_norm, and where learning rate"
        " times direction stays below it, as on ordinary problems, the run is the one without"
        " clipping. Where clipping stands between the direction and the rate instead, that norm is"
        " never above lr max_norm: plain SGD without decay is right, and Adam, whose direction has"
        " a norm of about the square root of the number of parameters, is clipped in nearly every"
        " update of a real model: its update then has the norm lr max_norm, whatever the gradient."
    ),
    family="clipping",
    frequency=2,
    severity=3,
    stages=replace(STAGES, clip=not_at_all, take_update=clip_change),
    forms=(replace(STAGES, clip=not_at_all, take_update=clip_direction),),
    look_alikes={
        "clip-ignored": "plain SGD with learning rate times gradient norm above max_norm: not"
        " clipped there",
        "clip-per-microbatch": "K = 1 with momentum or Adam, and no loss scale: right there",
    },
    evidence=(
        (
            "https://github.com/sanchit-gandhi/seq2seq-speech/pull/7",
            "clip gradients by their global norm, not the parameter updates as before",
        ),
        (
            "https://github.com/google-deepmind/optax/issues/364",
            "a question on the order of a chain: its parts are applied as they are listed",
        ),
    ),
)
