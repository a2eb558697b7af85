"""The coefficient matrix: with which weight each micro-batch entered each update, and in words.

The most telling of all probes: nearly every mistake of zeroing, scaling and windows is a pattern
of it that can be read without knowing the code.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from fractions import Fraction

import numpy as np

from lockstep.diagnosis.probes import FEATURES, TARGET, TINY_RATE
from lockstep.problem import Array, Problem

# Gradients move by a millionth within the probe; smaller weights are none.
NOTHING = 1e-4
NEAR = 1e-3


def coefficient_matrix(trajectory: Sequence[Array]) -> Array:
    """With which weight each micro-batch's mean gradient entered each update.

    Shape (updates, micro-batches); correct is 1 / K within a window, and 0 elsewhere.
    trajectory: W above b after each update of the coefficients probe.
    """
    W = np.array([theta[:FEATURES, 0] for theta in trajectory], np.float64).reshape(-1, FEATURES)
    moved = np.diff(np.vstack([np.zeros((1, FEATURES)), W]), axis=0)
    # The mean of two squared errors of size TARGET has the gradient -2 TARGET.
    found = moved / (TINY_RATE * 2 * TARGET)
    return np.where(abs(found) < NOTHING, 0.0, found)


def correct_matrix(problem: Problem) -> Array:
    """The matrix of the correct loop."""
    found = np.zeros((problem.updates, len(problem.micro_batches)))
    for row, window in zip(found, problem.windows, strict=True):
        row[list(window)] = 1 / len(window)
    return found


def in_words(found: Array, problem: Problem) -> list[str]:
    """What the matrix of a port says, a sentence each; none where it is the correct one."""
    correct = correct_matrix(problem)
    if not np.isfinite(found).all():
        return ["the parameters become infinite, or not a number"]
    if found.shape == correct.shape and near(found, correct):
        return []
    said = []
    if len(found) != len(correct):
        said.append(f"the parameters were shown {len(found)} times, for {len(correct)} windows")
    if not found.any():
        return [*said, "no micro-batch ever reaches the parameters"]
    said += unused(found, problem)
    if len(found) == len(correct):
        extra = list(strangers(found, problem))
        said += [*extra, *weights(found, problem, steady=not extra)]
    return said


def near(found: Array, correct: Array) -> bool:
    """Whether weights are the same, as far as the probe tells."""
    return bool((abs(found - correct) <= NEAR * np.maximum(abs(correct), NOTHING)).all())


def unused(found: Array, problem: Problem) -> Iterator[str]:
    """The micro-batches that never reach the parameters."""
    missing = [j for j in range(found.shape[1]) if not found[:, j].any()]
    if not missing:
        return
    k = problem.accumulation_steps
    windows = problem.windows[: len(problem.windows) // problem.epochs]
    full = [window for window in windows if len(window) == k]
    places = {j % k for j in missing if any(j in window for window in full)}
    if places and set(missing) >= {window[place] for window in full for place in places}:
        yield f"{numbers(places)} of every window never reach{'es' * (len(places) == 1)}" + REACH
        missing = [j for j in missing if not any(j in window for window in full)]
    if missing:
        yield f"{numbers(missing)} of an epoch never reach{'es' * (len(missing) == 1)}" + REACH


REACH = " the parameters"


def numbers(indices: Sequence[int] | set[int]) -> str:
    """Micro-batches by their numbers, from 1."""
    words = [str(j + 1) for j in sorted(indices)]
    if len(words) == 1:
        return f"micro-batch {words[0]}"
    return f"micro-batches {', '.join(words[:-1])} and {words[-1]}"


def strangers(found: Array, problem: Problem) -> Iterator[str]:
    """What enters an update, and is not of its window."""
    per_epoch = len(problem.windows) // problem.epochs
    before = [{j for window in problem.windows[:u] for j in window} for u in range(len(found))]
    within = [
        {j for window in problem.windows[u // per_epoch * per_epoch : u] for j in window}
        for u in range(len(found))
    ]
    outside = [
        {j for j in np.flatnonzero(row).tolist() if j not in window}
        for row, window in zip(found, problem.windows, strict=True)
    ]
    if not any(outside):
        return
    own = [set(window) for window in problem.windows]
    if outside == [each - mine for each, mine in zip(before, own, strict=True)]:
        yield "every update also contains the micro-batches of all windows before it"
    elif outside == [each - mine for each, mine in zip(within, own, strict=True)]:
        yield "every update also contains the micro-batches of its epoch's windows before it"
    else:
        for update, extra in enumerate(outside, 1):
            if extra:
                yield f"update {update} also contains {numbers(extra)}"


def weights(found: Array, problem: Problem, steady: bool) -> Iterator[str]:
    """With which weights the micro-batches of a window enter, where these are not the right ones.

    The first window of each length speaks for all. Where the later ones should be like it, which
    is `steady`, it is said that they are not.
    """
    k = problem.accumulation_steps
    for length in sorted({len(window) for window in problem.windows}, reverse=True):
        rows = [
            row[list(window)]
            for row, window in zip(found, problem.windows, strict=True)
            if len(window) == length
        ]
        right = np.full(length, 1 / length)
        which = "a window" if length == k else "a partial window"
        if steady and near(rows[0], right) and not all(near(row, right) for row in rows):
            yield f"{which}'s micro-batches have the right weights at first, and others later"
        elif not near(rows[0], right) and rows[0].any():
            total = float(np.mean(rows[0] / right))
            if near(rows[0], right * total):
                yield f"every micro-batch of {which} enters with {plain(total)} times its weight"
            else:
                weighs = ", ".join(plain(weight) for weight in rows[0])
                yield f"the micro-batches of {which} weigh {weighs} instead of {plain(1 / length)}"


def plain(number: float) -> str:
    """A weight as the fraction that it probably is; beside one of 0, none."""
    if not math.isfinite(number):
        return "none"
    fraction = Fraction(float(number)).limit_denominator(36)
    if abs(float(fraction) - number) <= NEAR * abs(number):
        return str(fraction)
    return f"{number:.3g}"
