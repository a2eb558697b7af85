"""The test for a boundary never comes true, and nothing is ever updated."""

from dataclasses import replace

from lockstep.mistakes import Mistake
from lockstep.oracle import loop
from lockstep.oracle.loop import STAGES, Place, Theta
from lockstep.oracle.rules import State


def as_compiled(theta: Theta, gradient: Theta, state: State, at: Place) -> tuple[Theta, State]:
    """No update, unless the first micro-step, which decides for all, was a boundary."""
    if at.kept.setdefault("updates", at.window_length == 1):
        return loop.take_update(theta, gradient, state, at)
    return theta, state


def as_counted(theta: Theta, gradient: Theta, state: State, at: Place) -> tuple[Theta, State]:
    """No update unless K is 1: the counter stands in the branch that it guards."""
    if at.problem.accumulation_steps == 1:
        return loop.take_update(theta, gradient, state, at)
    return theta, state


def only_alone(at: Place) -> bool:
    """A boundary only where every micro-step is one."""
    return at.problem.accumulation_steps == 1


def never(at: Place) -> bool:
    """No boundary at all."""
    return False


MISTAKE = Mistake(
    title="The test for a boundary never comes true, so that nothing is updated",
    explanation=(
        "In tf.function and jax.jit an if on a Python number is decided once, while the function"
        " is traced. The first micro-step is no boundary, so the branch without the update is"
        " what is compiled, whatever the counter says later; the counter itself, if it is in"
        " there, stops at 1. Attributes of self, globals, closures and static objects are such"
        " numbers; a traced one raises in JAX. TensorFlow traces again for another shape, so that"
        " with ragged micro-batches some shapes update and others never do. PyTorch's"
        " torch.compile guards the numbers it reads, and compiles again; there, a counter that is"
        " incremented only in the branch which it guards does the same."
    ),
    signature=(
        "Parameters and optimizer state keep their bits for ever, while losses are computed. With"
        " K = 1 everything is right, since the other branch is compiled then. An accumulator that"
        " lives on grows without end: with gradients of 1, K = 3 and 6 micro-steps the parameter"
        " is where it was and the accumulator at 6, in TensorFlow 2.21 as in JAX 0.10."
    ),
    family="windows",
    frequency=3,
    severity=5,
    stages=replace(STAGES, take_update=as_compiled),
    forms=(
        replace(STAGES, boundary=only_alone),
        replace(STAGES, boundary=never),
        replace(STAGES, take_update=as_counted),
    ),
    look_alikes={
        "zero-before-update": "K = 1: this one is right there, and zero-before-update is not",
        "step-every-microbatch": (
            "the same fault, traced at a boundary: then every micro-step updates"
        ),
        "zero-only-if-updated": (
            "a run without a window that is not finite: only this one stands still"
        ),
        "leftover-dropped": "full windows: they are updates there",
    },
    evidence=(
        (
            "https://github.com/tensorflow/tensorflow/issues/41760",
            "advice: no Python scalar or boolean in the condition of a compiled train_step",
        ),
        (
            "https://github.com/andreped/GradientAccumulator/issues/102",
            "an if on an attribute in train_step will not give what you want with tf.function",
        ),
        (
            "https://docs.jax.dev/en/latest/_sources/faq.rst",
            "jit runs the function once and keeps the first value of a global for all later calls",
        ),
        (
            "https://github.com/jax-ml/jax/issues/1488",
            "accumulation in a jitted function with an if on a counter: what is the correct way?",
        ),
        (
            "https://github.com/jax-ml/jax/pull/20732",
            "the documentation's example of state that jit breaks is a counter",
        ),
    ),
)
