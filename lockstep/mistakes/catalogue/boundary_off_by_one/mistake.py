"""The test of the boundary is off by one micro-step."""

from dataclasses import replace

from lockstep.mistakes import Mistake
from lockstep.oracle.loop import STAGES, Number, Place, examples
from lockstep.problem import Problem


def rest_dropped(problem: Problem) -> Problem:
    """What follows an epoch's last multiple of K is in no window."""
    if problem.partial_windows != "apply":
        return rest_applied(problem)
    k = problem.accumulation_steps
    return rearranged(problem, range((len(problem.micro_batches) - 1) // k * k + 1))


def rest_applied(problem: Problem) -> Problem:
    """Where whole windows alone are taken, the first, of one micro-batch, is none of them."""
    if problem.partial_windows == "apply" or problem.accumulation_steps == 1:
        return problem
    count, epochs = len(problem.micro_batches), problem.epochs
    if problem.partial_windows == "carry":
        problem = replace(problem, epochs=1, partial_windows="drop")
        return rearranged(problem, range(1, epochs * count))
    return rearranged(problem, range(1, count))


def rearranged(problem: Problem, indices: range) -> Problem:
    """The same problem with these of its micro-batches."""
    each, weights = problem.micro_batches, problem.example_weights
    return replace(
        problem,
        micro_batches=[each[index % len(each)] for index in indices],
        example_weights=weights and [weights[index % len(each)] for index in indices],
    )


def window(at: Place) -> range:
    """The micro-steps of its window, which begins one after a multiple of K."""
    k = at.problem.accumulation_steps
    before = k - 1 if at.problem.partial_windows == "apply" else 0
    start = (at.micro_step + before) // k * k - before
    return range(max(start, 0), min(start + k, at.micro_steps))


def end_of_window(at: Place) -> bool:
    """Whether this micro-step is the last of the shifted window, or of the epoch."""
    return at.micro_step == window(at)[-1]


def own_examples(at: Place) -> Number:
    """Divide by the examples of the shifted window."""
    return 1 / sum((examples(index, at) for index in window(at)), at.number(0))


def multiple_of_k(at: Place) -> bool:
    """Whether the micro-step, counted from 0, is a multiple of K."""
    return at.micro_step % at.problem.accumulation_steps == 0


def one_too_early(at: Place) -> bool:
    """Whether the next micro-step is the last of its window, of K."""
    return (at.micro_step + 2) % at.problem.accumulation_steps == 0


def constant(at: Place) -> Number:
    """The micro-batch's mean, divided by K."""
    return 1 / (at.examples * at.problem.accumulation_steps)


MISTAKE = Mistake(
    title="The test of the boundary is off by one, and so are all windows",
    explanation=(
        "`i % K == 0` holds for i = 0: the first update is taken after one micro-batch, and all"
        " later windows are shifted by one. With `enumerate`, whose counter starts at 0, the test"
        " is `(i + 1) % K == 0`; where the counter starts at 1, that test is the one that is off,"
        " and the first update is taken after K - 1 micro-batches. What follows an epoch's last"
        " boundary is dropped, applied as a window of its own, or left in the accumulator for the"
        " next epoch, depending on the loop around the test."
    ),
    signature=(
        "Update 1 differs: it has one micro-batch, or K - 1. In the coefficient matrix the blocks"
        " of K are shifted by one column, to the right behind a first row of one column, or to the"
        " left. Where the loss is divided by the constant K, that column is 1 / K; where it is"
        " divided by the window's own examples, 1. K = 1 is right."
    ),
    family="windows",
    frequency=4,
    severity=3,
    stages=replace(STAGES, settings=rest_dropped, weigh=own_examples, boundary=end_of_window),
    forms=(
        replace(STAGES, settings=rest_applied, weigh=own_examples, boundary=end_of_window),
        replace(STAGES, boundary=multiple_of_k),
        replace(STAGES, boundary=multiple_of_k, weigh=constant),
        replace(STAGES, boundary=one_too_early, weigh=constant),
    ),
    look_alikes={
        "step-every-microbatch": "the first row of the coefficient matrix: one column, or K - 1,"
        " here; where it has one there too, the second: K columns here",
        "leftover-leaks": "the first update of the run: right there",
        "reuse-one-microbatch": "later rows of the coefficient matrix: K columns here, one there",
    },
    evidence=(
        (
            "https://github.com/rasbt/LLMs-from-scratch/issues/299",
            "`batch_idx % accumulation_steps == 0` triggers an update on the very first batch; the"
            " author agrees",
        ),
        (
            "https://github.com/rasbt/LLMs-from-scratch/pull/300",
            "the fix: not for the first batch, but for the last",
        ),
        (
            "https://github.com/Gen-Verse/dLLM-RL/issues/7",
            "`(step + 1) % K` with `enumerate(..., start=1)`",
        ),
        (
            "https://github.com/jingyaogong/minimind/issues/691",
            "step begins at start_step + 1, so the test's + 1 is one too many; a known problem",
        ),
        ("https://github.com/ultralytics/yolov5/issues/1630", "quotes `if ni % accumulate == 0`"),
    ),
)
